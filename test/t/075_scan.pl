# A table that is read from end to end is read without executor: whatever
# types its columns have, and wherever they lie in a row, those who wait are
# those of the query.  So are the tables of who is held back.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('scan');

add_warehouse($node, 'w', 50);
$node->safe_psql('w', <<'SQL');
CREATE DOMAIN dwh.id AS integer CHECK (VALUE > 0);
CREATE DOMAIN dwh.small AS smallint;
CREATE DOMAIN dwh.flag AS boolean;
CREATE SCHEMA s;
SQL

my $fill = "SELECT n, n % 3 = 0 FROM generate_series(1, 200) AS n";
my %tables = (
	'a bigint' => "CREATE TABLE s.t AS SELECT n::bigint AS dimension_user_id, n % 3 = 0 AS modified FROM generate_series(1, 200) AS n;
		INSERT INTO s.t VALUES (-9000000000, TRUE), (9000000000, TRUE)",
	'a smallint' => "CREATE TABLE s.t (dimension_user_id smallint, modified boolean); INSERT INTO s.t $fill; INSERT INTO s.t VALUES (-7, TRUE)",
	'domains' => "CREATE TABLE s.t (modified dwh.flag, dimension_user_id dwh.id); INSERT INTO s.t SELECT b, a FROM ($fill) AS f (a, b)",
	'a domain over smallint' => "CREATE TABLE s.t (dimension_user_id dwh.small, modified dwh.flag); INSERT INTO s.t $fill",
	'columns behind others of any length' => "CREATE TABLE s.t (a text, b numeric, dimension_user_id integer, c text, modified boolean, d text);
		INSERT INTO s.t SELECT CASE WHEN n % 2 = 0 THEN repeat('a', n) END, n, n, repeat('c', 40 * n), n % 3 = 0, repeat('long', 3000) FROM generate_series(1, 200) AS n",
	'columns that were added and dropped' => "CREATE TABLE s.t (gone text, dimension_user_id integer, gone_too integer);
		INSERT INTO s.t SELECT 'x', n, n FROM generate_series(1, 200) AS n;
		ALTER TABLE s.t DROP COLUMN gone, ADD COLUMN filling text DEFAULT 'y', ADD COLUMN modified boolean DEFAULT TRUE, DROP COLUMN gone_too;
		INSERT INTO s.t (dimension_user_id, modified) SELECT 1000 + n, n % 2 = 0 FROM generate_series(1, 100) AS n",
	'nulls' => "CREATE TABLE s.t (dimension_user_id integer, modified boolean);
		INSERT INTO s.t $fill; INSERT INTO s.t VALUES (1001, NULL), (NULL, TRUE), (NULL, NULL), (NULL, FALSE), (1002, TRUE)",
	'rows that are dead' => "CREATE TABLE s.t (dimension_user_id integer, modified boolean);
		INSERT INTO s.t $fill; UPDATE s.t SET modified = NOT modified WHERE dimension_user_id % 5 = 0; DELETE FROM s.t WHERE dimension_user_id % 7 = 0",
	'the same one twice' => "CREATE TABLE s.t (dimension_user_id integer, modified boolean); INSERT INTO s.t $fill; INSERT INTO s.t $fill",
	'a child' => "CREATE TABLE s.t (dimension_user_id integer, modified boolean); INSERT INTO s.t $fill;
		CREATE TABLE s.child (extra text) INHERITS (s.t); INSERT INTO s.child SELECT 500 + n, TRUE FROM generate_series(1, 100) AS n",
	'partitions' => "CREATE TABLE s.t (dimension_user_id integer, modified boolean) PARTITION BY RANGE (dimension_user_id);
		CREATE TABLE s.one PARTITION OF s.t FOR VALUES FROM (0) TO (100); CREATE TABLE s.two PARTITION OF s.t DEFAULT; INSERT INTO s.t $fill",
	'partitions by the flag' => "CREATE TABLE s.t (dimension_user_id integer, modified boolean) PARTITION BY LIST (modified);
		CREATE TABLE s.one PARTITION OF s.t FOR VALUES IN (TRUE); CREATE TABLE s.two PARTITION OF s.t DEFAULT; INSERT INTO s.t $fill",
	'a generated key' => "CREATE TABLE s.t (n integer, modified boolean, dimension_user_id integer GENERATED ALWAYS AS (n + 1000) STORED); INSERT INTO s.t $fill",
	'a condition in its column' => "CREATE TABLE s.t (dimension_user_id integer, modified boolean NOT NULL CHECK (modified)); INSERT INTO s.t SELECT n, TRUE FROM generate_series(1, 200) AS n",
);

# Only 18 computes what it reads.
if ($node->safe_psql('w', "SELECT current_setting('server_version_num')::integer") >= 180000)
{
	$tables{'a key that is computed'} = "CREATE TABLE s.t (n integer, modified boolean, dimension_user_id integer GENERATED ALWAYS AS (n + 1000) VIRTUAL); INSERT INTO s.t $fill";
	$tables{'a key that is computed of another type'} = "CREATE TABLE s.t (n integer, modified boolean, dimension_user_id bigint GENERATED ALWAYS AS (n) VIRTUAL); INSERT INTO s.t $fill; INSERT INTO s.t VALUES (-7, TRUE)";
}

my $columns = 'dimension_user_id, recency_class, activity_class, action_count, last_action_at';
foreach my $what (sort keys %tables)
{
	$node->safe_psql('w', "DROP TABLE IF EXISTS s.t CASCADE; DROP TABLE IF EXISTS s.child, s.one, s.two;
		$tables{$what}");
	$node->safe_psql('w', 'VACUUM ANALYZE s.t');

	my $users = "SET datamart_users.users_table = 's.t'";
	my $statement = $node->safe_psql('w', "$users; SELECT datamart_users_priority_query(1000)");
	$statement =~ s/;\s*\z//;
	my $expected = $node->safe_psql('w', "SELECT DISTINCT $columns FROM ($statement) AS q ORDER BY 1");

	cmp_ok(split(/\n/, $expected), '>', 50, "$what: many wait");
	foreach my $how ('without an index', 'with one')
	{
		# None can be on what is computed.
		last if $how eq 'with one' && $what =~ /computed/;
		$node->safe_psql('w', 'CREATE INDEX ON s.t (dimension_user_id) WHERE modified') if $how eq 'with one';
		foreach my $look ('first', 'second')
		{
			is($node->safe_psql('w', "$users; SELECT $columns FROM datamart_users_queue(1000) ORDER BY 1"),
				$expected, "$what: $look look, $how");
		}
	}
}

# Whom failures, contention and parking hold back, beside those of another
# datamart: from a page, and from an index.
my $held = <<'SQL';
SELECT h.dimension_user_id, max(h.next_attempt_at) > clock_timestamp() AS held, bool_or(h.parked) AS parked, max(h.next_attempt_at) AS until,
	coalesce(max(h.next_attempt_at) = max(h.next_attempt_at) FILTER (WHERE h.contention), false) AS contention
  FROM (SELECT dimension_user_id, next_attempt_at, false AS parked, false AS contention
		  FROM datamart_users_failures WHERE users_oid = 's.t'::regclass
		UNION ALL
		SELECT dimension_user_id, next_attempt_at, false, true FROM datamart_users_contention WHERE users_oid = 's.t'::regclass
		UNION ALL
		SELECT dimension_user_id, 'infinity', true, false FROM datamart_users_parked WHERE users_oid = 's.t'::regclass) AS h
 GROUP BY 1
SQL
foreach my $many (30, 20000)
{
	$node->safe_psql('w', <<"SQL");
DROP TABLE s.t;
CREATE TABLE s.t (dimension_user_id integer PRIMARY KEY, modified boolean);
INSERT INTO s.t SELECT n, TRUE FROM generate_series(1, $many) AS n;
TRUNCATE datamart_users_failures, datamart_users_contention, datamart_users_parked;
INSERT INTO datamart_users_failures
SELECT n, 1, now(), now(), now() + (n % 7 - 3) * interval '1 hour', 'XX000', 'made up', NULL, 1, users, users::text
  FROM generate_series(1, $many, 2) AS n, unnest(ARRAY['s.t'::regclass, 'dwh.dimension_users']) AS users ORDER BY -n;
INSERT INTO datamart_users_contention
SELECT n, 1, now(), now(), now() + (n % 5 - 2) * interval '1 hour', '40001', 'made up', 1, users, users::text
  FROM generate_series(1, $many, 3) AS n, unnest(ARRAY['s.t'::regclass, 'dwh.dimension_users']) AS users;
INSERT INTO datamart_users_parked
SELECT n, 'made up', now(), current_user, users, users::text
  FROM generate_series(1, $many, 11) AS n, unnest(ARRAY['s.t'::regclass, 'dwh.dimension_users']) AS users;
ANALYZE s.t;
SQL
	foreach my $what ('as it is', 'without the key of failures')
	{
		$node->safe_psql('w', 'ALTER TABLE datamart_users_failures DROP CONSTRAINT datamart_users_failures_pkey') if $what ne 'as it is';
		is($node->safe_psql('w', "SET datamart_users.users_table = 's.t'; SELECT dimension_user_id FROM datamart_users_queue($many) ORDER BY 1"),
			$node->safe_psql('w', "SELECT t.dimension_user_id FROM s.t LEFT JOIN ($held) AS h USING (dimension_user_id) WHERE h.held IS NOT TRUE ORDER BY 1"),
			"$many wait, $what: nobody who is held back is in the queue");
		is($node->safe_psql('w', "SET datamart_users.users_table = 's.t'; SELECT dimension_user_id, waits_for, held_until FROM datamart_users_stale(NULL) ORDER BY 1"),
			$node->safe_psql('w', "SELECT t.dimension_user_id,
				CASE WHEN h.held IS NOT TRUE THEN 'queue' WHEN h.parked THEN 'parked' WHEN h.contention THEN 'contention' ELSE 'back-off' END,
				CASE WHEN h.held AND NOT h.parked THEN h.until END
				FROM s.t LEFT JOIN ($held) AS h USING (dimension_user_id) ORDER BY 1"),
			"$many wait, $what: and it is told what holds them");
	}
	$node->safe_psql('w', 'ALTER TABLE datamart_users_failures ADD PRIMARY KEY (users_oid, dimension_user_id)');
}

# What is true before the table can be locked need not be true afterwards.
sub lock_and_change
{
	my ($change, $sql, %options) = @_;
	my $other = $node->background_psql('w');

	$other->query_safe("BEGIN; LOCK TABLE s.t; $change");
	my $client = start_psql($node, 'w', [ "SET datamart_users.users_table = 's.t'", $sql ], %options);
	wait_for_sql($node, 'w', "SELECT count(*) > 0 FROM pg_locks WHERE relation = 's.t'::regclass AND NOT granted", 'somebody waits for the table');
	$other->query_safe('COMMIT');
	$other->quit;
	return finish($client);
}

$node->safe_psql('w', <<'SQL');
DROP TABLE s.t;
CREATE TABLE s.t (dimension_user_id smallint, modified boolean);
INSERT INTO s.t SELECT n, TRUE FROM generate_series(1, 50) AS n;
TRUNCATE datamart_users_failures, datamart_users_contention, datamart_users_parked;
CREATE ROLE reader LOGIN;
GRANT USAGE ON SCHEMA dwh, s TO reader;
GRANT SELECT ON dwh.facts, s.t TO reader;
GRANT EXECUTE ON FUNCTION datamart_users_queue TO reader;
SQL
my ($status, $stdout, $stderr) = lock_and_change(
	'ALTER TABLE s.t ALTER dimension_user_id TYPE integer; INSERT INTO s.t VALUES (100001, TRUE)',
	'SELECT failed FROM datamart_users_run_cycle(1000, 1)');
is("$status $stdout", '0 0', 'the type of the key is changed before a cycle has the lock');
is($node->safe_psql('w', 'SELECT count(*) FROM s.t WHERE modified'), 0, 'all are refreshed');
is($node->safe_psql('w', 'SELECT count(*), max(dimension_user_id) FROM dwh.datamartusers WHERE dimension_user_id NOT BETWEEN 1 AND 50'),
	'1|100001', 'and they are those who were flagged');

$node->safe_psql('w', 'UPDATE s.t SET modified = TRUE');
($status, $stdout, $stderr) = lock_and_change('REVOKE SELECT ON s.t FROM reader',
	'SELECT count(*) FROM datamart_users_queue(5)', user => 'reader');
is(sqlstate($stderr), '42501', 'what a role may read is taken from it before it has the lock');

# A foreign server can say what it likes.
$node->safe_psql('postgres', 'CREATE DATABASE far');
$node->safe_psql('far', <<'SQL');
DO $$BEGIN EXECUTE (SELECT format('CREATE TYPE public.liar AS ENUM (%s)', string_agg(quote_literal(5000000 + n), ',')) FROM generate_series(1, 3000) AS n); END$$;
CREATE FUNCTION pg_catalog.lie(public.liar, bigint) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR pg_catalog.= (LEFTARG = public.liar, RIGHTARG = bigint, FUNCTION = pg_catalog.lie);
CREATE FUNCTION public.lie(public.liar) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT $1::text::bigint';
CREATE CAST (public.liar AS bigint) WITH FUNCTION public.lie(public.liar);
CREATE TABLE public.facts (action_dimension_id_user public.liar, action_at timestamptz);
INSERT INTO public.facts SELECT unnest(enum_range(NULL::public.liar)), now();
SQL
$node->safe_psql('w', <<"SQL");
CREATE EXTENSION postgres_fdw;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '@{[$node->host]}', port '@{[$node->port]}', dbname 'far');
CREATE USER MAPPING FOR CURRENT_USER SERVER far;
CREATE FOREIGN TABLE s.far_facts (action_dimension_id_user integer, action_at timestamptz) SERVER far OPTIONS (schema_name 'public', table_name 'facts');
SQL
my $far = "SET datamart_users.users_table = 's.t'; SET datamart_users.facts_table = 's.far_facts'";
is($node->safe_psql('w', 'SELECT count(*) FROM s.far_facts WHERE action_dimension_id_user = ANY (ARRAY[1, 2]::bigint[])'),
	3000, 'a foreign server tells of many who were not asked for');
is($node->safe_psql('w', "$far; SELECT count(*), max(dimension_user_id) FROM datamart_users_queue(1000000)"), '51|100001', 'they are not in the queue');
is($node->safe_psql('w', "$far; SELECT sum(waiting) FROM datamart_users_backlog"), 51, 'nor in the backlog');
is($node->safe_psql('w', "$far; SELECT count(*) FROM datamart_users_stale(NULL)"), 51, 'nor are they stale');
is($node->safe_psql('w', "$far; SELECT found, processed, skipped FROM datamart_users_run_cycle(1000, 1)"), '51|51|0', 'nor does a cycle take them');

# Who moves from one table to another meanwhile is held back in any case.
$node->safe_psql('w', <<'SQL');
UPDATE s.t SET modified = TRUE;
INSERT INTO datamart_users_contention
VALUES (7, 1, now(), now(), now() + interval '1 hour', '40001', 'made up', 1, 's.t'::regclass, 's.t');
SQL
my $other = $node->background_psql('w');
$other->query_safe('BEGIN; LOCK TABLE datamart_users_contention');
my $client = start_psql($node, 'w', [ "SET datamart_users.users_table = 's.t'", 'SELECT waits_for FROM datamart_users_stale(NULL) WHERE dimension_user_id = 7' ]);
wait_for_sql($node, 'w', "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'datamart_users_contention'::regclass AND NOT granted", 'somebody waits for the table');
$other->query_safe("INSERT INTO datamart_users_failures VALUES (7, 1, now(), now(), now() + interval '1 hour', 'XX000', 'made up', NULL, 1, 's.t'::regclass, 's.t');
	DELETE FROM datamart_users_contention; COMMIT");
$other->quit;
($status, $stdout, $stderr) = finish($client);
is($stdout, 'back-off', 'who moves from contention to failures is held back');

# Whatever the tables are kept by.
$node->safe_psql('w', <<'SQL');
CREATE ACCESS METHOD another TYPE TABLE HANDLER heap_tableam_handler;
ALTER TABLE datamart_users_contention SET ACCESS METHOD another;
ALTER TABLE s.t SET ACCESS METHOD another;
SQL
is($node->safe_psql('w', "SET datamart_users.users_table = 's.t'; SELECT count(*) FROM datamart_users_queue(1000)"), 50, 'tables of another access method');

done_testing();
