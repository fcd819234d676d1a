# What was counted for a version of a datamart user's row is remembered, and
# never makes an order that the query of the prioritisation would not make:
# with every type and time zone, whatever happens to the tables, and with an ETL
# that keeps to its contract in whatever way.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('remember');
my $stderr;

# Rows of queue() that are not those of the query in one snapshot, in order.
sub differences
{
	my ($database, @settings) = @_;
	my ($status, $stdout);

	$stdout = (run_psql($node, $database, [ @settings, 'SELECT datamart_users_priority_query(1000000)' ]))[1];
	$stdout =~ s/;\s*\z//;
	($status, $stdout, $stderr) = run_psql($node, $database, [ @settings, <<"SQL" ]);
SELECT coalesce(string_agg(format('%s: %s is %s', coalesce(q.queue_position, t.queue_position), t, q), '; ' ORDER BY coalesce(q.queue_position, t.queue_position)), '')
  FROM (SELECT row_number() OVER () AS queue_position, * FROM ($stdout) AS t) AS t
  FULL JOIN (SELECT queue_position, dimension_user_id, recency_class, activity_class, action_count, last_action_at
			   FROM datamart_users_queue(1000000)) AS q USING (queue_position)
 WHERE (t.dimension_user_id, t.recency_class, t.activity_class, t.action_count, t.last_action_at)
	   IS DISTINCT FROM (q.dimension_user_id, q.recency_class, q.activity_class, q.action_count, q.last_action_at)
SQL
	return $status == 0 ? $stdout : $stderr;
}

sub is_exact
{
	my ($database, $what, @settings) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(differences($database, @settings), '', $what);
}

sub query
{
	my ($database, @statements) = @_;
	my ($status, $stdout);

	($status, $stdout, $stderr) = run_psql($node, $database, [@statements]);
	return $status == 0 ? $stdout : $stderr;
}

# Adds 65536 to every count that is remembered, so that its use shows.
my $poison = <<'SQL';
DO $$
DECLARE
	c record;
	b bytea;
BEGIN
	FOR c IN SELECT ctid, entries FROM datamart_users_counts LOOP
		b := c.entries;
		FOR i IN 0 .. length(b) / 40 - 1 LOOP
			b := set_byte(b, 40 * i + 10, 1);
		END LOOP;
		UPDATE datamart_users_counts SET entries = b WHERE ctid = c.ctid;
	END LOOP;
END
$$
SQL

# How many of the queue were counted wrongly, and how many not.
my $poisoned = 'SELECT count(*) FILTER (WHERE action_count >= 65536), count(*) FILTER (WHERE action_count < 65536) FROM datamart_users_queue(1000000)';

#
# Types and time zones
#
my @extremes = (
	q('infinity'), q('-infinity'), q('4713-12-01 BC'), q('4700-01-01 BC'), q('4700-12-31 BC'), q('0001-01-01'),
	q('9999-12-30'), q('9999-12-31'), q('20000-01-01'), 'NULL',
	map { ("CURRENT_DATE - $_", "CURRENT_DATE - $_ - 1") } (0, 7, 30, 90));

add_warehouse($node, 'types', 1);
foreach my $type ('date', 'timestamp', 'timestamptz')
{
	$node->safe_psql('types', "TRUNCATE dwh.facts, dwh.dimension_users; ALTER TABLE dwh.facts ALTER action_at DROP NOT NULL; ALTER TABLE dwh.facts DROP action_at, ADD action_at $type");
	my $id = 0;
	foreach my $extreme (@extremes)
	{
		$id++;
		$node->safe_psql('types', "INSERT INTO dwh.dimension_users VALUES ($id); INSERT INTO dwh.facts VALUES ($id, $extreme)");
		$node->safe_psql('types', "INSERT INTO dwh.dimension_users VALUES ($id + 100); INSERT INTO dwh.facts SELECT $id + 100, $extreme FROM generate_series(1, " . (9, 10, 11, 99, 100, 101, 102)[$id % 7] . ")");
	}
	# Ties, moments around midnight, nobody's facts, and nobody's users.
	$node->safe_psql('types', <<'SQL');
INSERT INTO dwh.dimension_users SELECT i FROM generate_series(300, 330) i;
INSERT INTO dwh.facts SELECT i, CURRENT_DATE - 3 FROM generate_series(300, 320) i, generate_series(1, i % 3);
INSERT INTO dwh.facts SELECT NULL, CURRENT_DATE FROM generate_series(1, 20);
INSERT INTO dwh.facts SELECT 9999, CURRENT_DATE FROM generate_series(1, 20);
SQL
	$node->safe_psql('types', <<'SQL') if $type ne 'date';
INSERT INTO dwh.dimension_users SELECT i FROM generate_series(400, 599) i;
INSERT INTO dwh.facts SELECT 400 + h, CURRENT_DATE - 7 - (h % 3) * 30 + (h - 100) * interval '37 minutes' FROM generate_series(0, 199) h;
SQL
	foreach my $zone ('UTC', 'Europe/Vienna', 'America/St_Johns', 'Pacific/Kiritimati', 'Etc/GMT+12')
	{
		is_exact('types', "$type in $zone, look $_", "SET timezone = '$zone'") for 1, 2;
	}
	is_exact('types', "$type with other classes", q(SET datamart_users.recency_days = '1, 2, 365000'), q(SET datamart_users.activity_thresholds = '10, 2'));
	my $users = $node->safe_psql('types', 'SELECT count(*) FROM dwh.dimension_users');
	$node->safe_psql('types', $poison);
	is(query('types', $poisoned), "$users|0", "$type: all was remembered");
	$node->safe_psql('types', 'DELETE FROM datamart_users_counts');
	is(query('types', $poisoned), "0|$users", 'and is not needed');
	# The first ones of all.
	foreach my $take (1, 2, 10, 50, 1000)
	{
		is(query('types', "SELECT string_agg(dimension_user_id::text, ' ' ORDER BY queue_position) FROM datamart_users_queue($take)"),
			query('types', "SELECT string_agg(dimension_user_id::text, ' ' ORDER BY queue_position) FROM datamart_users_queue(1000000) WHERE queue_position <= $take"), "the first $take");
	}
}

#
# Ids of any size, in rows that lie in any order
#
my @ids = (
	'-9223372036854775808', '-9223372036854775807', '9223372036854775806', '9223372036854775807',
	(map { my $power = $_; map { ("(1::bigint << $power) + $_", "-(1::bigint << $power) + $_") } (-1, 0, 1) } (3, 10, 11, 12, 21, 22, 23, 31, 32, 33, 43, 44, 45, 54, 55, 61, 62)));

$node->safe_psql('postgres', 'CREATE DATABASE ids');
add_warehouse($node, 'ids', 1);
$node->safe_psql('ids', 'TRUNCATE dwh.facts, dwh.dimension_users; ALTER TABLE dwh.facts ALTER action_dimension_id_user TYPE bigint; ALTER TABLE dwh.dimension_users ALTER dimension_user_id TYPE bigint');
$node->safe_psql('ids', 'CREATE TABLE ids (name text, id bigint)');
$node->safe_psql('ids', q{INSERT INTO ids SELECT DISTINCT 'of any size', id FROM unnest(ARRAY[} . join(', ', map { /^-?\d+$/ ? "'$_'::bigint" : $_ } @ids) . ']) AS u (id)');
$node->safe_psql('ids', q(INSERT INTO ids SELECT 'next to each other', i FROM generate_series(5000000000, 5000000200) i));
$node->safe_psql('ids', q(INSERT INTO ids SELECT 'close to each other', i FROM generate_series(-300, 300) i WHERE i % 7 IN (2, 3)));
foreach my $name ('of any size', 'next to each other', 'close to each other')
{
	foreach my $order ('id', 'id DESC', 'md5(id::text)', 'abs(id / 2)', 'id % 20')
	{
		$node->safe_psql('ids', "TRUNCATE dwh.facts, dwh.dimension_users; INSERT INTO dwh.dimension_users SELECT id FROM ids WHERE name = '$name' ORDER BY $order; INSERT INTO dwh.facts SELECT id, CURRENT_DATE FROM ids, generate_series(1, abs(id % 3)::integer) WHERE name = '$name'");
		my $users = $node->safe_psql('ids', 'SELECT count(*) FROM dwh.dimension_users');
		is_exact('ids', "ids $name by $order, look $_") for 1, 2;
		$node->safe_psql('ids', $poison);
		is(query('ids', $poisoned), "$users|0", "ids $name by $order: all was remembered");
	}
}

#
# What must not be used
#
$node->safe_psql('postgres', 'CREATE DATABASE w');
add_warehouse($node, 'w', 20);
$node->safe_psql('w', <<'SQL');
DROP TABLE dwh.facts;
CREATE TABLE dwh.facts (action_dimension_id_user integer, action_at timestamptz, other_id integer, other_at timestamptz) PARTITION BY RANGE (action_at);
CREATE TABLE dwh.facts_old PARTITION OF dwh.facts FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
CREATE TABLE dwh.facts_new PARTITION OF dwh.facts FOR VALUES FROM ('2020-01-01') TO ('2100-01-01');
CREATE TABLE dwh.facts_later (LIKE dwh.facts);
INSERT INTO dwh.facts SELECT i, d, 21 - i, d FROM generate_series(1, 20) i, (VALUES (timestamptz '2010-01-01'), (CURRENT_DATE - 5)) v (d), generate_series(1, i);
INSERT INTO dwh.facts_later SELECT i, '2100-05-05', i, '2100-05-05' FROM generate_series(1, 20) i, generate_series(1, 3);
CREATE ROLE etl LOGIN;
GRANT USAGE ON SCHEMA dwh TO etl;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO etl;
GRANT EXECUTE ON ALL PROCEDURES IN SCHEMA dwh TO etl;
GRANT SELECT ON ALL TABLES IN SCHEMA dwh TO etl;
GRANT UPDATE ON dwh.dimension_users TO etl;
SQL

# Fills the memory with wrong counts.
sub remember_wrongly
{
	query('w', $poisoned);
	$node->safe_psql('w', $poison);
	return;
}

sub is_forgotten
{
	my ($what, $sql, %options) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->safe_psql('w', 'DELETE FROM datamart_users_counts');
	remember_wrongly();
	is(query('w', $poisoned), '20|0', "before $what: remembered");
	$node->safe_psql('w', $sql) if $sql ne '';
	is((run_psql($node, 'w', [ @{ $options{settings} // [] }, $poisoned ], user => $options{user}))[1], $options{is} // '0|20', $what);
	$node->safe_psql('w', $options{after}) if defined $options{after};
	$node->safe_psql('w', 'DELETE FROM datamart_users_counts');
	is_exact('w', "after $what, look $_") for 1, 2;
	return;
}

is_forgotten('nothing', '', is => '20|0');
is_forgotten('a changed row', 'UPDATE dwh.dimension_users SET modified = true WHERE dimension_user_id = 7', is => '19|1');
is_forgotten('a row that came again', 'DELETE FROM dwh.dimension_users WHERE dimension_user_id = 7; INSERT INTO dwh.dimension_users VALUES (7, true)', is => '19|1');
is_forgotten('a row that was locked', 'BEGIN; SELECT FROM dwh.dimension_users FOR UPDATE; COMMIT', is => '20|0');
is_forgotten('a change that was rolled back', 'BEGIN; UPDATE dwh.dimension_users SET modified = true; ROLLBACK', is => '20|0');
is_forgotten('keys that were exchanged', 'UPDATE dwh.dimension_users SET dimension_user_id = -dimension_user_id WHERE dimension_user_id IN (3, 4); UPDATE dwh.dimension_users SET dimension_user_id = 7 + dimension_user_id WHERE dimension_user_id IN (-3, -4)', is => '18|2');
is_forgotten('VACUUM FULL of the users', 'UPDATE dwh.dimension_users SET modified = true; VACUUM FULL dwh.dimension_users');
is_forgotten('VACUUM FREEZE of the users', 'VACUUM FREEZE dwh.dimension_users', is => '20|0');
is_forgotten('TRUNCATE of a partition', 'TRUNCATE dwh.facts_old');
is_forgotten('a partition that comes', q(ALTER TABLE dwh.facts ATTACH PARTITION dwh.facts_later FOR VALUES FROM ('2100-01-01') TO (MAXVALUE)));
is_forgotten('one that comes again', q(ALTER TABLE dwh.facts DETACH PARTITION dwh.facts_later; DELETE FROM dwh.facts_later WHERE action_dimension_id_user = 3; ALTER TABLE dwh.facts ATTACH PARTITION dwh.facts_later FOR VALUES FROM ('2100-01-01') TO (MAXVALUE)));
is_forgotten('one that goes', 'DROP TABLE dwh.facts_later');
is_forgotten('another time column', '', settings => [ q(SET datamart_users.facts_time_column = 'other_at') ]);
is_forgotten('another user column', '', settings => [ q(SET datamart_users.facts_user_column = 'other_id') ]);
is_forgotten('columns that have changed names', 'ALTER TABLE dwh.facts RENAME other_id TO x; ALTER TABLE dwh.facts RENAME action_dimension_id_user TO other_id; ALTER TABLE dwh.facts RENAME x TO action_dimension_id_user');
is_forgotten('a billion transactions', 'UPDATE datamart_users_counts SET as_of = (as_of::text::bigint - 1000000000)::text::xid8');
is_forgotten('half a billion', q(UPDATE datamart_users_counts SET as_of = greatest(3, as_of::text::bigint - 500000000)::text::xid8), is => '20|0');
is_forgotten('another table of facts', 'CREATE TABLE dwh.more AS SELECT * FROM dwh.facts', settings => [ q(SET datamart_users.facts_table = 'dwh.more') ]);
is_forgotten('facts in a view', 'CREATE VIEW dwh.seen AS SELECT * FROM dwh.more', settings => [ q(SET datamart_users.facts_table = 'dwh.seen') ]);
is_forgotten('facts in a materialized view', 'CREATE MATERIALIZED VIEW dwh.kept AS SELECT * FROM dwh.more', settings => [ q(SET datamart_users.facts_table = 'dwh.kept') ]);
is_forgotten('users in a view', 'CREATE VIEW dwh.people AS SELECT * FROM dwh.dimension_users', settings => [ q(SET datamart_users.users_table = 'dwh.people') ]);
is_forgotten('no role', '', user => 'etl', is => '20|0');
is_forgotten('a policy on the facts', 'ALTER TABLE dwh.facts ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON dwh.facts TO etl USING (true)', user => 'etl');
is_forgotten('a policy for others', '', is => '20|0', after => 'ALTER TABLE dwh.facts DISABLE ROW LEVEL SECURITY');
is_forgotten('a policy on the users', 'ALTER TABLE dwh.dimension_users ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON dwh.dimension_users TO etl USING (true)', user => 'etl', after => 'ALTER TABLE dwh.dimension_users DISABLE ROW LEVEL SECURITY');
is_forgotten('a transaction that has written', '', settings => [ 'BEGIN', 'CREATE TEMP TABLE t ()' ]);
is_forgotten('a transaction that has not', '', settings => [ 'BEGIN READ ONLY' ], is => '20|0');
is_forgotten('a memory that is cut short', q(UPDATE datamart_users_counts SET entries = substr(entries, 1, 40 * 5 + 7)), is => '5|15');
is_forgotten('an index on our table', 'CREATE INDEX i ON datamart_users_counts (run)', after => 'DROP INDEX i');
is_forgotten('no memory', 'TRUNCATE datamart_users_counts');

# Nobody waits for whoever has locked it.
remember_wrongly();
my $holder = $node->background_psql('w');
$holder->query_safe('BEGIN; LOCK TABLE datamart_users_counts');
is(query('w', $poisoned), '0|20', 'a locked memory');
is(query('w', 'SELECT found, processed FROM datamart_users_run_cycle(5, 1)'), '5|5', 'is in no cycle\'s way');
is($stderr, '', 'without a word');
$holder->quit;

# A server that starts knows nothing.
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = true');
remember_wrongly();
$node->restart;
is(query('w', $poisoned), '0|20', 'after a restart');
remember_wrongly();
$node->stop('immediate');
$node->start;
is(query('w', $poisoned), '0|20', 'after a crash');

# Rows of the same id cannot be told apart.
$node->safe_psql('w', 'CREATE TABLE dwh.twice AS SELECT * FROM dwh.dimension_users; INSERT INTO dwh.twice SELECT * FROM dwh.dimension_users WHERE dimension_user_id <= 4');
my @twice = q(SET datamart_users.users_table = 'dwh.twice');
query('w', @twice, $poisoned);
$node->safe_psql('w', $poison);
is(query('w', @twice, $poisoned), '16|4', 'an id that is there twice');
$node->safe_psql('w', 'DELETE FROM datamart_users_counts');
is_exact('w', 'in the order, look ' . $_, @twice) for 1, 2;

# A cycle remembers, too: those that it has not refreshed, and nobody else.
$node->safe_psql('w', 'DELETE FROM datamart_users_counts; UPDATE dwh.dimension_users SET modified = true');
query('w', 'SELECT datamart_users_run_cycle(5, 1)');
is($node->safe_psql('w', 'SELECT sum(length(entries)) / 40 FROM datamart_users_counts'), '15', 'what a cycle remembers');
$node->safe_psql('w', $poison);
is(query('w', $poisoned), '15|0', 'is used');
is(query('w', 'SELECT sum(waiting), max(waiting) FROM datamart_users_backlog WHERE waiting > 0'), '15|15', 'and by the backlog');
$node->safe_psql('w', 'DELETE FROM datamart_users_counts; UPDATE dwh.dimension_users SET modified = true');
is(query('w', 'SELECT processed FROM datamart_users_run_cycle(100, 2)'), '20', 'a cycle that refreshes all');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_counts'), '0', 'remembers nothing');

# queue() leaves no transaction id behind in which a cycle could not run.
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = true');
is(query('w', 'SELECT (SELECT count(*) FROM datamart_users_queue()), processed FROM datamart_users_run_cycle(3, 1)'), '20|3', 'the queue and a cycle in one statement');

#
# An ETL that keeps its contract
#
my $seed = $ENV{DMU_SEED} // int(rand(1 << 30));
my $rounds = $ENV{DMU_ROUNDS} // 120;
my $users = 45;
my (@sessions, @open);

srand($seed);
note("DMU_SEED=$seed");
$node->safe_psql('postgres', 'CREATE DATABASE r');
add_warehouse($node, 'r', $users);
$node->safe_psql('r', <<'SQL');
DROP TABLE dwh.facts;
CREATE TABLE dwh.facts (action_dimension_id_user integer, action_at timestamp) PARTITION BY RANGE (action_at);
SELECT format('CREATE TABLE dwh.facts_%s PARTITION OF dwh.facts FOR VALUES FROM (CURRENT_DATE - %s) TO (CURRENT_DATE - %s)', n, n * 40, n * 40 - 40) FROM generate_series(0, 4) n \gexec
CREATE SEQUENCE dwh.ids START 1000;
SQL

sub dice { return int(rand($_[0])); }

sub start_sessions
{
	@sessions = map { $node->background_psql('r') } 0 .. 2;
	@open = (0) x 3;
	return;
}

# Each session has its own datamart users, so that none waits for another.
sub mine { my ($s) = @_; return "dimension_user_id % 3 = $s"; }

sub some { my ($s) = @_; return mine($s) . ' AND hashint8extended(dimension_user_id, ' . dice(1 << 30) . ') % 4 = 0'; }

sub facts
{
	my ($condition) = @_;

	return "INSERT INTO dwh.facts SELECT dimension_user_id, CURRENT_DATE - " . dice(150) . " + interval '" . dice(1400) . " minutes' FROM dwh.dimension_users, generate_series(1, " . (1 + dice(6)) . ") WHERE $condition;";
}

sub flags { my ($condition) = @_; return "UPDATE dwh.dimension_users SET modified = true WHERE $condition;"; }

sub end_all
{
	foreach my $s (0 .. 2)
	{
		$sessions[$s]->query_safe(dice(4) ? 'COMMIT' : 'ROLLBACK') if $open[$s];
		$open[$s] = 0;
	}
	return;
}

# What an ETL may do in one transaction.
sub touch
{
	my ($s) = @_;
	my $condition = some($s);
	my $kind = dice(9);

	return facts($condition) . flags($condition) if $kind <= 1;
	return flags($condition) . facts($condition) if $kind == 2;
	return facts($condition) . flags($condition) . facts($condition) . flags($condition) if $kind == 3;
	return 'SAVEPOINT s;' . facts($condition) . flags($condition) . 'ROLLBACK TO s;' . facts($condition) . flags($condition) . 'RELEASE s;' if $kind == 4;
	return 'SAVEPOINT s;' . flags($condition) . facts($condition) . 'RELEASE s; SAVEPOINT t;' . facts($condition) . 'ROLLBACK TO t;' if $kind == 5;
	return "CREATE TEMP TABLE gone ON COMMIT DROP AS SELECT * FROM dwh.dimension_users WHERE $condition; DELETE FROM dwh.dimension_users WHERE $condition; "
	  . 'DELETE FROM dwh.facts WHERE action_dimension_id_user IN (SELECT dimension_user_id FROM gone);'
	  . (dice(2) ? '' : "INSERT INTO dwh.dimension_users SELECT dimension_user_id, true FROM gone; ")
	  . 'DROP TABLE gone;'
	  if $kind == 6;
	# Another key, which is as new as its row; and who has it next.
	return "UPDATE dwh.dimension_users SET dimension_user_id = 3 * nextval('dwh.ids') + $s, modified = true WHERE $condition;" if $kind == 7;
	return 'SAVEPOINT s;' . "UPDATE dwh.facts SET action_at = CURRENT_DATE WHERE action_dimension_id_user IN (SELECT dimension_user_id FROM dwh.dimension_users WHERE $condition);" . flags($condition) . 'RELEASE s;';
}

# What is done to the tables while nobody is at work.
my @maintenance = (
	'VACUUM FULL dwh.dimension_users', 'CLUSTER dwh.dimension_users USING dimension_users_pkey', 'VACUUM FREEZE dwh.dimension_users',
	'VACUUM dwh.dimension_users', 'VACUUM FULL dwh.facts', 'VACUUM FULL datamart_users_counts', 'TRUNCATE dwh.facts_1', 'TRUNCATE datamart_users_counts',
	'ALTER TABLE dwh.facts DETACH PARTITION dwh.facts_2; DELETE FROM dwh.facts_2 WHERE random() < 0.5; ALTER TABLE dwh.facts ATTACH PARTITION dwh.facts_2 FOR VALUES FROM (CURRENT_DATE - 80) TO (CURRENT_DATE - 40)',
	'DROP TABLE dwh.facts_3; CREATE TABLE dwh.facts_3 PARTITION OF dwh.facts FOR VALUES FROM (CURRENT_DATE - 120) TO (CURRENT_DATE - 80)',
	'INSERT INTO dwh.dimension_users SELECT i, true FROM generate_series(1, ' . $users . ') i ON CONFLICT DO NOTHING',
	'UPDATE dwh.dimension_users SET modified = true', 'ALTER TABLE dwh.dimension_users ALTER modified SET DEFAULT true, ADD IF NOT EXISTS note text; ALTER TABLE dwh.dimension_users DROP note');

start_sessions();
my $bad = 0;
my @story;
foreach my $round (1 .. $rounds)
{
	my $s = dice(3);
	my $kind = dice(20);
	my $what;

	if ($kind < 12)
	{
		$what = ($open[$s] ? '' : 'BEGIN' . (dice(3) ? ';' : ' ISOLATION LEVEL REPEATABLE READ;')) . touch($s);
		$open[$s] = 1;
		if (dice(2)) { $what .= (dice(5) ? 'COMMIT;' : 'ROLLBACK;'); $open[$s] = 0; }
		$sessions[$s]->query_safe($what);
	}
	elsif ($kind < 14)
	{
		# Facts first, and somebody looks before the flag is set.
		my $condition = some($s);

		end_all();
		$sessions[$s]->query_safe("BEGIN; CREATE TEMP TABLE mine AS SELECT * FROM dwh.dimension_users WHERE $condition; " . facts($condition) . 'COMMIT');
		query('r', 'SELECT count(*) FROM datamart_users_queue()') if dice(2);
		$what = "two transactions, $condition";
		$sessions[$s]->query_safe(flags('dimension_user_id IN (SELECT dimension_user_id FROM mine)') . 'DROP TABLE mine');
	}
	elsif ($kind < 16)
	{
		end_all();
		$what = 'a cycle: ' . query('r', 'SELECT processed FROM datamart_users_run_cycle(' . (1 + dice(10)) . ', 1)');
	}
	elsif ($kind < 19)
	{
		end_all();
		$what = $maintenance[ dice(scalar @maintenance) ];
		query('r', split /; /, $what);
	}
	elsif (dice(4) == 0)
	{
		$what = 'a crash';
		$node->stop('immediate');
		foreach my $session (@sessions) { eval { $session->quit }; }
		$node->start;
		start_sessions();
	}
	else
	{
		$what = 'a look within another snapshot: ' . query('r', 'BEGIN ISOLATION LEVEL REPEATABLE READ', 'SELECT count(*) FROM datamart_users_queue()', 'COMMIT');
	}
	push @story, "$round: $what";
	my $differences = differences('r');
	if ($differences ne '' || $stderr ne '')
	{
		fail("round $round");
		diag("DMU_SEED=$seed\n" . join("\n", @story[ -10 .. -1 ]) . "\n$differences\n$stderr");
		$bad = 1;
		last;
	}
}
ok(!$bad, 'never a difference');
end_all();
$_->quit for @sessions;
$node->safe_psql('r', 'UPDATE dwh.dimension_users SET modified = true; DELETE FROM datamart_users_counts');
query('r', $poisoned);
$node->safe_psql('r', $poison);
like(query('r', $poisoned), qr/^[1-9]\d*\|0$/, 'all that was with a memory');

$node->stop;
done_testing();
