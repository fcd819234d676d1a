--
-- flag.sql
--		Guards that a flag is cleared, and stays so, or the refresh fails.
--
-- A users table that does not do what it is told: triggers, rules and views
-- that keep the flag, set it again, or clear it in their own way.  Who keeps
-- the flag fails; who has none in the end is processed.
CREATE EXTENSION datamart_users;
\getenv srcdir PG_ABS_SRCDIR
\set begin :srcdir '/include/begin.sql'
\i :begin

SET datamart_users.retry_delay = 0;
\pset tuples_only on
\pset format unaligned

-- The outcome of one datamart user, and what is left of its flag.
CREATE PROCEDURE dwh.arrange() LANGUAGE sql AS $$
	DELETE FROM datamart_users_failures;
	TRUNCATE dwh.refreshes;
	DELETE FROM dwh.dimension_users;
	INSERT INTO dwh.dimension_users VALUES (1, 'one', TRUE);
$$;
CREATE VIEW dwh.failure AS
	SELECT sqlstate, message, translate(context, E'\n', ' ') FROM datamart_users_failures;
\set try 'CALL dwh.arrange(); SELECT processed, failed FROM datamart_users_run_cycle(NULL, 1); SELECT * FROM dwh.failure; SELECT dimension_user_id, modified, (SELECT count(*) FROM dwh.refreshes) AS refreshes FROM dwh.dimension_users ORDER BY 1;'

--
-- Triggers
--
CREATE FUNCTION dwh.keep() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN NEW.modified := TRUE; RETURN NEW; END $$;
CREATE FUNCTION dwh.swallow() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN RETURN NULL; END $$;
CREATE FUNCTION dwh.set_again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM dwh.dimension_users WHERE dimension_user_id = 1 AND modified) THEN
		UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = 1;
	END IF;
	RETURN NULL;
END $$;
CREATE FUNCTION dwh.set_again_deferred() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	SET CONSTRAINTS ALL DEFERRED;
	UPDATE dwh.dimension_users SET label = label || '!', modified = (label = 'one!!')
	WHERE dimension_user_id = 1 AND label <> 'one!!!';
	RETURN NULL;
END $$;
CREATE FUNCTION dwh.move() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN NEW.dimension_user_id := 100; NEW.modified := TRUE; RETURN NEW; END $$;
CREATE FUNCTION dwh.move_cleared() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN NEW.dimension_user_id := 100; RETURN NEW; END $$;
CREATE FUNCTION dwh.touch() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN NEW.label := 'touched'; RETURN NEW; END $$;
CREATE FUNCTION dwh.remove() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN DELETE FROM dwh.dimension_users WHERE dimension_user_id = 1; RETURN NULL; END $$;

-- none
:try

-- one that minds its own business
CREATE TRIGGER t BEFORE UPDATE ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.touch();
:try
DROP TRIGGER t ON dwh.dimension_users;

-- BEFORE
CREATE TRIGGER t BEFORE UPDATE ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.keep();
:try
DROP TRIGGER t ON dwh.dimension_users;

-- BEFORE, returns no row
CREATE TRIGGER t BEFORE UPDATE ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.swallow();
:try
DROP TRIGGER t ON dwh.dimension_users;

-- BEFORE, to another key
CREATE TRIGGER t BEFORE UPDATE ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.move();
:try
DROP TRIGGER t ON dwh.dimension_users;
CREATE TRIGGER t BEFORE UPDATE ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.move_cleared();
:try
DROP TRIGGER t ON dwh.dimension_users;

-- AFTER, for each row and for each statement
CREATE TRIGGER t AFTER UPDATE ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.set_again();
:try
DROP TRIGGER t ON dwh.dimension_users;
CREATE TRIGGER t AFTER UPDATE ON dwh.dimension_users FOR EACH STATEMENT EXECUTE FUNCTION dwh.set_again();
:try
DROP TRIGGER t ON dwh.dimension_users;

-- AFTER, the row goes
CREATE TRIGGER t AFTER UPDATE ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.remove();
:try
DROP TRIGGER t ON dwh.dimension_users;

-- deferred
CREATE CONSTRAINT TRIGGER t AFTER UPDATE ON dwh.dimension_users DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION dwh.set_again();
:try
DROP TRIGGER t ON dwh.dimension_users;

-- deferred once more by the trigger itself
CREATE CONSTRAINT TRIGGER t AFTER UPDATE ON dwh.dimension_users DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION dwh.set_again_deferred();
:try
DROP TRIGGER t ON dwh.dimension_users;

-- deferred, on a table that the procedure writes
CREATE CONSTRAINT TRIGGER t AFTER INSERT ON dwh.refreshes DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION dwh.set_again();
:try
DROP TRIGGER t ON dwh.refreshes;

-- disabled
CREATE TRIGGER t BEFORE UPDATE ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.keep();
ALTER TABLE dwh.dimension_users DISABLE TRIGGER t;
:try
DROP TRIGGER t ON dwh.dimension_users;

-- foreign keys, deferred
CREATE TABLE dwh.referencing (id integer REFERENCES dwh.dimension_users DEFERRABLE INITIALLY DEFERRED);
:try
DROP TABLE dwh.referencing;

--
-- Rules
--
CREATE RULE r AS ON UPDATE TO dwh.dimension_users DO INSTEAD NOTHING;
:try
CREATE OR REPLACE RULE r AS ON UPDATE TO dwh.dimension_users DO INSTEAD INSERT INTO dwh.facts VALUES (NULL, now());
:try
CREATE OR REPLACE RULE r AS ON UPDATE TO dwh.dimension_users DO INSTEAD DELETE FROM dwh.dimension_users WHERE dimension_user_id = OLD.dimension_user_id;
:try
CREATE OR REPLACE RULE r AS ON UPDATE TO dwh.dimension_users DO ALSO INSERT INTO dwh.facts VALUES (OLD.dimension_user_id, now());
:try
CREATE OR REPLACE RULE r AS ON UPDATE TO dwh.dimension_users WHERE OLD.label = 'two' DO INSTEAD NOTHING;
:try
CREATE OR REPLACE RULE r AS ON UPDATE TO dwh.dimension_users WHERE OLD.label = 'one' DO INSTEAD NOTHING;
:try
DROP RULE r ON dwh.dimension_users;

--
-- Views
--
ALTER TABLE dwh.dimension_users RENAME TO base;
CREATE VIEW dwh.dimension_users AS SELECT * FROM dwh.base;
:try
CREATE TRIGGER t BEFORE UPDATE ON dwh.base FOR EACH ROW EXECUTE FUNCTION dwh.keep();
:try
DROP TRIGGER t ON dwh.base;

CREATE FUNCTION dwh.do_it() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE dwh.base SET modified = NEW.modified WHERE dimension_user_id = OLD.dimension_user_id;
	RETURN NEW;
END $$;
CREATE FUNCTION dwh.do_it_and_return_old() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE dwh.base SET modified = NEW.modified WHERE dimension_user_id = OLD.dimension_user_id;
	RETURN OLD;
END $$;
CREATE FUNCTION dwh.do_it_and_return_nothing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE dwh.base SET modified = NEW.modified WHERE dimension_user_id = OLD.dimension_user_id;
	RETURN NULL;
END $$;
CREATE FUNCTION dwh.pretend() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER t INSTEAD OF UPDATE ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.do_it();
:try
CREATE OR REPLACE TRIGGER t INSTEAD OF UPDATE ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.do_it_and_return_old();
:try
CREATE OR REPLACE TRIGGER t INSTEAD OF UPDATE ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.do_it_and_return_nothing();
:try
CREATE OR REPLACE TRIGGER t INSTEAD OF UPDATE ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.pretend();
:try
DROP TRIGGER t ON dwh.dimension_users;

-- in which a datamart user is to be seen only while it is modified
CREATE OR REPLACE VIEW dwh.dimension_users AS SELECT * FROM dwh.base WHERE modified;
:try
SELECT dimension_user_id, modified FROM dwh.base;
CREATE FUNCTION dwh.clear_base(integer) RETURNS void LANGUAGE sql AS
	'UPDATE dwh.base SET modified = FALSE WHERE dimension_user_id = $1';
CREATE RULE r AS ON UPDATE TO dwh.dimension_users DO INSTEAD SELECT dwh.clear_base(OLD.dimension_user_id);
TRUNCATE dwh.base;
:try
SELECT dimension_user_id, modified FROM dwh.base;
CREATE OR REPLACE RULE r AS ON UPDATE TO dwh.dimension_users DO INSTEAD UPDATE dwh.base SET modified = NEW.modified WHERE dimension_user_id = OLD.dimension_user_id;
TRUNCATE dwh.base;
:try
SELECT dimension_user_id, modified FROM dwh.base;
DROP VIEW dwh.dimension_users;

--
-- Several tables in one
--
DROP TABLE dwh.base;
CREATE TABLE dwh.dimension_users (dimension_user_id integer, label text, modified boolean)
	PARTITION BY LIST (dimension_user_id);
CREATE TABLE dwh.users_1 PARTITION OF dwh.dimension_users FOR VALUES IN (1);
CREATE TABLE dwh.users_others PARTITION OF dwh.dimension_users DEFAULT;
:try
CREATE TRIGGER t AFTER UPDATE ON dwh.users_1 FOR EACH ROW EXECUTE FUNCTION dwh.set_again();
:try
DROP TRIGGER t ON dwh.users_1;
CREATE TRIGGER t BEFORE UPDATE ON dwh.users_1 FOR EACH ROW EXECUTE FUNCTION dwh.keep();
:try
DROP TABLE dwh.dimension_users;

CREATE TABLE dwh.dimension_users (dimension_user_id integer, label text, modified boolean);
CREATE TABLE dwh.child () INHERITS (dwh.dimension_users);
CREATE TRIGGER t AFTER UPDATE ON dwh.child FOR EACH ROW EXECUTE FUNCTION dwh.set_again();
CREATE OR REPLACE PROCEDURE dwh.arrange() LANGUAGE sql AS $$
	DELETE FROM datamart_users_failures;
	TRUNCATE dwh.refreshes, dwh.dimension_users;
	INSERT INTO dwh.child VALUES (1, 'one', TRUE);
$$;
:try
DROP TABLE dwh.dimension_users CASCADE;

-- Several rows of one key, of which one keeps the flag.
CREATE TABLE dwh.dimension_users (dimension_user_id integer, label text, modified boolean);
CREATE OR REPLACE PROCEDURE dwh.arrange() LANGUAGE sql AS $$
	DELETE FROM datamart_users_failures;
	TRUNCATE dwh.refreshes, dwh.dimension_users;
	INSERT INTO dwh.dimension_users VALUES (1, 'one', TRUE), (1, 'two', TRUE);
$$;
:try
CREATE TRIGGER t BEFORE UPDATE ON dwh.dimension_users FOR EACH ROW WHEN (NEW.label = 'two') EXECUTE FUNCTION dwh.keep();
:try
DROP TRIGGER t ON dwh.dimension_users;

-- A column that cannot be set.
ALTER TABLE dwh.dimension_users DROP modified, ADD modified boolean GENERATED ALWAYS AS (label IS NOT NULL) STORED;
CREATE OR REPLACE PROCEDURE dwh.arrange() LANGUAGE sql AS $$
	DELETE FROM datamart_users_failures;
	TRUNCATE dwh.refreshes, dwh.dimension_users;
	INSERT INTO dwh.dimension_users VALUES (1, 'one');
$$;
:try

DROP SCHEMA dwh CASCADE;
DROP EXTENSION datamart_users;
