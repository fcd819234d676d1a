--
-- triggers.sql
--		Guards that the doctor sees which triggers every refresh fires, and that
--		what he says against it can be pasted, and helps.
CREATE EXTENSION datamart_users;
\getenv srcdir PG_ABS_SRCDIR
\set begin :srcdir '/include/begin.sql'
\i :begin
\pset format unaligned
\pset tuples_only on
\set says 'SELECT status, detail FROM datamart_users_check() WHERE item = ''triggers'';'
\set hints 'SELECT unnest(string_to_array(hint, E''\\n'')) AS hint FROM datamart_users_check() WHERE item = ''triggers'''

ALTER TABLE dwh.dimension_users ADD COLUMN updated_at integer DEFAULT 0;
INSERT INTO dwh.dimension_users VALUES (1, 'one', true), (2, 'two', true);
CREATE FUNCTION dwh.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updated_at := OLD.updated_at + 1; RETURN NEW; END $$;
CREATE TABLE dwh.told (trigger_name name, op text);
CREATE FUNCTION dwh.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO dwh.told VALUES (TG_NAME, TG_OP); RETURN NULL; END $$;
:says

-- The usual one.
CREATE TRIGGER touch BEFORE UPDATE ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.touch();
SELECT processed FROM datamart_users_run_cycle();
SELECT dimension_user_id, modified, updated_at FROM dwh.dimension_users ORDER BY 1;
:says
:hints;
:hints \gexec
:says
-- Now the ETL moves it, and the refresh does not.
UPDATE dwh.dimension_users SET modified = true;
UPDATE dwh.dimension_users SET label = 'deux' WHERE dimension_user_id = 2;
SELECT dimension_user_id, modified, updated_at FROM dwh.dimension_users ORDER BY 1;
SELECT processed FROM datamart_users_run_cycle();
SELECT dimension_user_id, modified, updated_at FROM dwh.dimension_users ORDER BY 1;
DROP TRIGGER touch ON dwh.dimension_users;

-- For several events, with conditions and columns, with names to quote.
CREATE TRIGGER "Tell All" AFTER INSERT OR DELETE OR UPDATE ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.tell('an argument', ' EXECUTE FUNCTION x');
CREATE TRIGGER of_columns AFTER UPDATE OF modified, label ON dwh.dimension_users FOR EACH ROW WHEN (NEW.dimension_user_id > 0) EXECUTE FUNCTION dwh.tell();
CREATE TRIGGER whole_row AFTER UPDATE ON dwh.dimension_users FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION dwh.tell();
CREATE TRIGGER with_tables AFTER UPDATE ON dwh.dimension_users REFERENCING OLD TABLE AS o NEW TABLE AS n FOR EACH ROW EXECUTE FUNCTION dwh.tell();
CREATE TRIGGER each_statement AFTER UPDATE ON dwh.dimension_users FOR EACH STATEMENT EXECUTE FUNCTION dwh.tell();
CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON dwh.dimension_users DEFERRABLE FOR EACH ROW EXECUTE FUNCTION dwh.tell();
CREATE RULE too AS ON UPDATE TO dwh.dimension_users DO ALSO INSERT INTO dwh.told VALUES ('too', 'RULE');
-- None of these is fired by a refresh.
CREATE TRIGGER not_other_columns AFTER UPDATE OF label ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.tell();
CREATE TRIGGER not_unchanged AFTER UPDATE ON dwh.dimension_users FOR EACH ROW WHEN (OLD.label IS DISTINCT FROM NEW.label) EXECUTE FUNCTION dwh.tell();
CREATE TRIGGER not_when_cleared AFTER UPDATE ON dwh.dimension_users FOR EACH ROW WHEN (NEW.modified) EXECUTE FUNCTION dwh.tell();
CREATE TRIGGER not_on_insert AFTER INSERT ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.tell();
CREATE TRIGGER not_enabled AFTER UPDATE ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.tell();
ALTER TABLE dwh.dimension_users DISABLE TRIGGER not_enabled;
CREATE TRIGGER not_here AFTER UPDATE ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.tell();
ALTER TABLE dwh.dimension_users ENABLE REPLICA TRIGGER not_here;
SELECT status, unnest(string_to_array(detail, '; ')) FROM datamart_users_check() WHERE item = 'triggers';
:hints;

UPDATE dwh.dimension_users SET modified = true WHERE dimension_user_id = 1;
TRUNCATE dwh.told;
SELECT processed FROM datamart_users_run_cycle();
SELECT * FROM dwh.told ORDER BY 1;
:hints \gexec
SELECT status, unnest(string_to_array(detail, '; ')) FROM datamart_users_check() WHERE item = 'triggers';
ALTER TABLE dwh.dimension_users DISABLE TRIGGER each_statement, DISABLE TRIGGER late, DISABLE RULE too;
:says
UPDATE dwh.dimension_users SET modified = true WHERE dimension_user_id = 1;
TRUNCATE dwh.told;
SELECT processed FROM datamart_users_run_cycle();
SELECT * FROM dwh.told ORDER BY 1;
-- They still do what they are for.
UPDATE dwh.dimension_users SET label = 'uno' WHERE dimension_user_id = 1;
DELETE FROM dwh.dimension_users WHERE dimension_user_id = 1;
INSERT INTO dwh.dimension_users VALUES (1, 'one', false);
SELECT * FROM dwh.told ORDER BY 1, 2;

-- Partitions and views, with other names for the flag.
CREATE TABLE dwh."Parts" (k integer, "Flag" boolean, t integer DEFAULT 0) PARTITION BY RANGE (k);
CREATE TABLE dwh.p1 PARTITION OF dwh."Parts" FOR VALUES FROM (0) TO (10);
CREATE TABLE dwh.p2 (t integer, "Flag" boolean, k integer);
ALTER TABLE dwh."Parts" ATTACH PARTITION dwh.p2 FOR VALUES FROM (10) TO (20);
CREATE VIEW dwh.seen AS SELECT k AS key, "Flag" AS flag FROM dwh."Parts";
INSERT INTO dwh."Parts" VALUES (1, true), (11, true);
CREATE TRIGGER on_all AFTER UPDATE ON dwh."Parts" FOR EACH ROW EXECUTE FUNCTION dwh.tell();
CREATE TRIGGER on_one AFTER UPDATE OF "Flag" ON dwh.p2 FOR EACH ROW EXECUTE FUNCTION dwh.tell();
CREATE TRIGGER not_for_statements AFTER UPDATE ON dwh.p1 FOR EACH STATEMENT EXECUTE FUNCTION dwh.tell();
SET datamart_users.users_table = 'dwh.seen';
SET datamart_users.users_key_column = 'key';
SET datamart_users.users_flag_column = 'flag';
:says
:hints;
:hints \gexec
:says
TRUNCATE dwh.told;
SELECT processed FROM datamart_users_run_cycle();
SELECT * FROM dwh.told;

-- Where there is no users table, there are no triggers.
SET datamart_users.users_table = 'dwh.nowhere';
:says

SET client_min_messages = warning;
DROP SCHEMA dwh CASCADE;
DROP EXTENSION datamart_users;
