# What the prioritisation reads, whatever the planner believes: counted in the
# plans that were run, for the statistics that daily life leaves behind.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant {
	USERS => 2000,
	FACTS => 10000,

	# A fact of the backlog passes through no more nodes of a plan; the others
	# of a table that is read as a whole through a scan, and what puts
	# partitions together or is hidden in a view.
	NODES => 12,
	PASSES => 2,
};

my $node = new_node('prioritisation', conf => "jit = off\n");

# Every plan of the session as a NOTICE, with what its nodes have read.
my $explain = <<'SQL';
LOAD 'auto_explain';
SET auto_explain.log_min_duration = 0;
SET auto_explain.log_analyze = on;
SET auto_explain.log_verbose = on;
SET auto_explain.log_timing = off;
SET auto_explain.log_nested_statements = on;
SET auto_explain.log_format = json;
SET auto_explain.log_level = notice;
SQL

# The plans that a statement runs on relations of the warehouse.
sub plans_of
{
	my ($database, $sql) = @_;
	my ($stdout, $stderr) = ('', '');
	my @plans;

	$node->psql($database, "$explain\n$sql", stdout => \$stdout, stderr => \$stderr,
		on_error_stop => 1);
	while ($stderr =~ /plan:\n(\{.*?^\})/msg)
	{
		my $text = $1;

		push @plans, decode_json($text)->{Plan} if $text =~ /"Schema": "dwh"|"Alias": "w"/;
	}
	return ($stdout, @plans);
}

sub walk
{
	my ($plan, $visit) = @_;

	$visit->($plan);
	walk($_, $visit) for @{ $plan->{Plans} // [] };
	return;
}

# Rows that the nodes produced or removed, all loops.
sub rows_read
{
	my $rows = 0;

	walk($_, sub {
			my ($plan) = @_;
			my $each = $plan->{'Actual Rows'};

			$each += $plan->{$_} // 0
			  for ('Rows Removed by Filter', 'Rows Removed by Join Filter',
				'Rows Removed by Index Recheck');
			$rows += $each * $plan->{'Actual Loops'};
		}) for @_;
	return $rows;
}

# How the facts and the users are kept; the first name is that of the layout.
my %layouts = (
	'plain' => <<'SQL',
CREATE TABLE dwh.facts (action_dimension_id_user integer, action_at timestamp, kind text);
CREATE TABLE dwh.dimension_users (dimension_user_id integer PRIMARY KEY, modified boolean);
SQL
	'partitioned' => <<'SQL',
CREATE TABLE dwh.facts (action_dimension_id_user integer, action_at timestamp, kind text)
PARTITION BY RANGE (action_at);
SELECT format('CREATE TABLE dwh.facts_%s PARTITION OF dwh.facts FOR VALUES FROM (%L) TO (%L)',
			  n, date '2020-01-01' + 365 * (n - 1), date '2020-01-01' + 365 * n)
FROM generate_series(1, 5) n \gexec
CREATE TABLE dwh.dimension_users (dimension_user_id integer PRIMARY KEY, modified boolean)
PARTITION BY HASH (dimension_user_id);
CREATE TABLE dwh.dimension_users_0 PARTITION OF dwh.dimension_users FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE dwh.dimension_users_1 PARTITION OF dwh.dimension_users FOR VALUES WITH (MODULUS 2, REMAINDER 1);
SQL

	# Behind views there are conditions and joins whose estimates go wrong too.
	'views' => <<'SQL',
CREATE TABLE dwh.all_facts (who bigint, happened timestamptz, kind text);
CREATE VIEW dwh.facts AS
	SELECT who::integer AS action_dimension_id_user, happened::date AS action_at, kind
	FROM dwh.all_facts WHERE kind = 'edit';
CREATE TABLE dwh.people (dimension_user_id bigint, stale boolean);
CREATE TABLE dwh.accounts (account_id bigint, closed boolean);
CREATE VIEW dwh.dimension_users AS
	SELECT p.dimension_user_id, p.stale AS modified
	FROM dwh.people p JOIN dwh.accounts a ON a.account_id = p.dimension_user_id
	WHERE NOT a.closed;
CREATE FUNCTION dwh.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
	UPDATE dwh.people SET stale = NEW.modified WHERE dimension_user_id = NEW.dimension_user_id;
	RETURN NEW;
END';
CREATE TRIGGER touch INSTEAD OF UPDATE ON dwh.dimension_users
	FOR EACH ROW EXECUTE FUNCTION dwh.touch();
SQL

	# The renaming view of a plain table: its index is to be used.
	'renaming view' => <<'SQL',
CREATE TABLE dwh.all_facts (who bigint, happened timestamptz, kind text);
CREATE VIEW dwh.facts AS
	SELECT who AS action_dimension_id_user, happened AS action_at, kind FROM dwh.all_facts;
CREATE TABLE dwh.dimension_users (dimension_user_id bigint PRIMARY KEY, modified boolean);
SQL
);

my %facts_table = ('views' => 'dwh.all_facts', 'renaming view' => 'dwh.all_facts');
my %flag = ('views' => [ 'dwh.people', 'stale' ]);
my $number = 0;

sub make_warehouse
{
	my ($layout, $index) = @_;
	my $database = 'w' . ++$number;
	my $facts = $facts_table{$layout} // 'dwh.facts';
	my ($users, $flag) = @{ $flag{$layout} // [ 'dwh.dimension_users', 'modified' ] };
	my $columns = $facts eq 'dwh.facts' ? 'action_dimension_id_user, action_at' : 'who, happened';

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, <<"SQL");
CREATE SCHEMA dwh;
$layouts{$layout}
CREATE PROCEDURE dwh.update_datamart_user(p_id integer) LANGUAGE sql AS 'SELECT 1';
INSERT INTO $users SELECT n, false FROM generate_series(1, ${\USERS}) n;
CREATE EXTENSION datamart_users;
SQL
	$node->safe_psql($database, "INSERT INTO dwh.accounts SELECT n, false FROM generate_series(1, ${\USERS}) n")
	  if $layout eq 'views';
	$node->safe_psql($database, "CREATE INDEX ON $facts ($columns)") if $index;
	return ($database, $facts, $users, $flag);
}

# Half of the facts are one datamart user's, half a percent nobody's.
sub add_facts
{
	my ($database, $facts) = @_;

	$node->safe_psql($database, <<"SQL");
INSERT INTO $facts
SELECT CASE WHEN n % 200 = 0 THEN NULL WHEN n % 2 = 0 THEN 1 ELSE n % ${\USERS} + 1 END,
	   timestamp '2020-01-01' + n * interval '3 hours', 'edit'
FROM generate_series(1, ${\FACTS}) n
SQL
	return;
}

# What ANALYZE last saw, and what is true when the cycle comes.
my %statistics = (
	'nobody was flagged' => sub {
		my ($database, $facts, $users, $flag, $every) = @_;
		add_facts($database, $facts);
		$node->safe_psql($database, 'VACUUM ANALYZE');
		$node->safe_psql($database,
			"UPDATE $users SET $flag = true WHERE dimension_user_id % $every = 0");
	},
	'everybody was flagged' => sub {
		my ($database, $facts, $users, $flag, $every) = @_;
		add_facts($database, $facts);
		$node->safe_psql($database, "UPDATE $users SET $flag = true");
		$node->safe_psql($database, 'VACUUM ANALYZE');
		$node->safe_psql($database,
			"UPDATE $users SET $flag = false WHERE dimension_user_id % $every <> 0");
	},
	'all was empty' => sub {
		my ($database, $facts, $users, $flag, $every) = @_;
		$node->safe_psql($database, <<"SQL");
INSERT INTO $facts SELECT 1, '2020-02-02', 'view' FROM generate_series(1, 3);
DELETE FROM $users WHERE dimension_user_id > 3;
VACUUM ANALYZE;
INSERT INTO $users SELECT n, n % $every = 0 FROM generate_series(4, ${\USERS}) n;
SQL
		add_facts($database, $facts);
	},
	'never gathered' => sub {
		my ($database, $facts, $users, $flag, $every) = @_;
		add_facts($database, $facts);
		$node->safe_psql($database,
			"UPDATE $users SET $flag = true WHERE dimension_user_id % $every = 0");
	});

for my $layout (sort keys %layouts)
{
	for my $index (1, 0)
	{
		for my $statistics (sort keys %statistics)
		{
			for my $every (100, 1)
			{
				my $what = sprintf('%s, %s index, %s, one in %d', $layout,
					$index ? 'with' : 'without', $statistics, $every);
				my @warehouse = make_warehouse($layout, $index);
				my $database = $warehouse[0];

				$statistics{$statistics}->(@warehouse, $every);
				check_plans($what, $database, $index && $layout =~ /^(?:plain|renaming view)$/, $every);
				$node->safe_psql('postgres', "DROP DATABASE $database");
			}
		}
	}
}

# Each table is read once, and so much for each row that is asked for.
sub check_plans
{
	my ($what, $database, $looks_up, $every) = @_;
	my ($expected, $tables, $backlog) = split /\|/, $node->safe_psql($database, <<'SQL');
SELECT md5(string_agg(format('%s:%s', u.dimension_user_id, coalesce(f.n, 0)), ' ' ORDER BY u.dimension_user_id)),
	   (SELECT count(*) FROM dwh.facts) + 2 * (SELECT count(*) FROM dwh.dimension_users),
	   count(*) + coalesce(sum(f.n), 0)
FROM dwh.dimension_users u
LEFT JOIN (SELECT action_dimension_id_user AS id, count(*) AS n FROM dwh.facts GROUP BY 1) f
	   ON f.id = u.dimension_user_id
WHERE u.modified
SQL
	my ($result, @plans) = plans_of($database, <<'SQL');
SELECT md5(string_agg(format('%s:%s', dimension_user_id, action_count), ' ' ORDER BY dimension_user_id))
FROM datamart_users_queue(1000000);
SQL
	my $rows = rows_read(@plans);

	is($result, $expected, "$what: the right rows");
	# The flags of a plain table may be read without one.
	cmp_ok(scalar(@plans), '>=', 1, "$what: the plans were seen");
	cmp_ok($rows, '<=', PASSES * $tables + NODES * $backlog,
		"$what: $backlog rows asked for, $rows read");

	# A few are looked up where that is possible.
	if ($looks_up && $every > 1)
	{
		my $scans = 0;

		walk($_, sub { $scans++ if $_[0]->{'Node Type'} eq 'Seq Scan' && $_[0]->{'Relation Name'} =~ /facts/ })
		  for @plans;
		is($scans, 0, "$what: the facts are not read as a whole")
		  if $what =~ /flagged/;
	}
	return;
}

# A real cycle runs the same plans, in the process that coordinates it.
{
	my ($database, @warehouse) = make_warehouse('views', 0);

	$statistics{'nobody was flagged'}->($database, @warehouse, 1);
	my $offset = -s $node->logfile;
	$node->safe_psql($database,
		"$explain SET auto_explain.log_level = log; SELECT FROM datamart_users_run_cycle(10)");
	my $log = slurp_file($node->logfile, $offset);
	my @plans;

	while ($log =~ /plan:\n(\s*\{.*?^\s*\})\n(?=\S)/msg)
	{
		my $plan = decode_json($1);

		push @plans, $plan->{Plan} if $plan->{'Query Text'} =~ /AS action_count/;
	}
	is(scalar(@plans), 1, 'a cycle ran one query over the facts');
	cmp_ok(rows_read(@plans), '<=', FACTS + NODES * (FACTS + USERS), 'and it is not quadratic');
}

# Partitions that have no rows yet, as those of years to come, are read as a
# whole because nothing is cheaper; of a few that wait that is no reason to read
# the others, too.
{
	$node->safe_psql('postgres', 'CREATE DATABASE empty');
	$node->safe_psql('empty', <<"SQL");
CREATE SCHEMA dwh;
CREATE TABLE dwh.dimension_users (dimension_user_id integer PRIMARY KEY, modified boolean);
CREATE TABLE dwh.facts (action_dimension_id_user integer, action_at timestamp, what text) PARTITION BY RANGE (action_at);
CREATE TABLE dwh.facts_old PARTITION OF dwh.facts FOR VALUES FROM (MINVALUE) TO ('2021-01-01');
CREATE TABLE dwh.facts_new PARTITION OF dwh.facts FOR VALUES FROM ('2021-01-01') TO ('2100-01-01');
CREATE TABLE dwh.facts_next PARTITION OF dwh.facts FOR VALUES FROM ('2100-01-01') TO ('2101-01-01');
CREATE TABLE dwh.facts_rest PARTITION OF dwh.facts DEFAULT;
CREATE INDEX ON dwh.facts (action_dimension_id_user, action_at);
CREATE PROCEDURE dwh.update_datamart_user(p_id integer) LANGUAGE sql AS 'SELECT 1';
INSERT INTO dwh.dimension_users SELECT n, n % 500 = 3 FROM generate_series(1, ${\USERS}) n;
CREATE EXTENSION datamart_users;
SQL
	add_facts('empty', 'dwh.facts');
	$node->safe_psql('empty', 'VACUUM ANALYZE');
	foreach my $flagged ('dimension_user_id = 4', 'dimension_user_id IN (4, 502, 1002)')
	{
		$node->safe_psql('empty', "UPDATE dwh.dimension_users SET modified = ($flagged)");
		foreach my $remembers ('can be remembered', 'cannot')
		{
			my $written = $remembers eq 'cannot' ? 'BEGIN; CREATE TEMPORARY TABLE written ();' : '';
			my (undef, @plans) = plans_of('empty', <<"SQL");
DELETE FROM datamart_users_counts;
$written
SELECT count(*) FROM datamart_users_queue(1000);
SQL
			my $facts = 0;

			walk($_, sub {
					$facts += $_[0]->{'Actual Rows'} * $_[0]->{'Actual Loops'} if ($_[0]->{'Relation Name'} // '') =~ /^facts/;
				}) for @plans;
			cmp_ok($facts, '<=', 3 * (FACTS / USERS + 1), "$flagged waits, what is counted $remembers: of the facts $facts are read");
			cmp_ok($facts, '>', 0, 'and that was seen');
		}
	}
}

# An index that has not all that is counted is no way to read all the facts,
# however little a random page is said to cost.
{
	my ($database, $facts) = make_warehouse('partitioned', 0);

	$node->safe_psql($database, "CREATE INDEX ON $facts (action_dimension_id_user)");
	$node->safe_psql($database, <<"SQL");
INSERT INTO $facts
SELECT (n * 7919) % ${\USERS} + 1, timestamp '2020-01-01' + n * interval '30 minutes', repeat('x', 50)
FROM generate_series(1, 8 * ${\FACTS}) n
SQL
	$node->safe_psql($database, 'VACUUM ANALYZE');
	foreach my $every (1, 4, 16)
	{
		foreach my $cost ('1', '1.1', '2', '4')
		{
			my $walked = 0;

			$node->safe_psql($database, "UPDATE dwh.dimension_users SET modified = (dimension_user_id % $every = 0); DELETE FROM datamart_users_counts");
			my (undef, @plans) = plans_of($database, <<"SQL");
SET random_page_cost = $cost;
SELECT count(*) FROM datamart_users_queue(1000000);
SQL
			walk($_, sub {
					$walked++ if $_[0]->{'Node Type'} eq 'Index Scan' && $_[0]->{'Relation Name'} =~ /^facts/ && !defined $_[0]->{'Index Cond'};
				}) for @plans;
			cmp_ok(scalar(@plans), '>', 1, "one in $every, random_page_cost = $cost: the plans were seen");
			is($walked, 0, 'and no partition is read by way of an index');
		}
	}
}

# Nothing is compiled for it, however much it is expected to cost.
{
	my ($database, @warehouse) = make_warehouse('plain', 1);
	my ($stdout, $stderr) = ('', '');

	add_facts($database, $warehouse[0]);
	$node->safe_psql($database, "UPDATE $warehouse[1] SET modified = true");
	$node->psql($database,
		"$explain SET jit = on; SET jit_above_cost = 0; SELECT count(*) FROM datamart_users_queue()",
		stdout => \$stdout, stderr => \$stderr, on_error_stop => 1);
	my @plans = grep { /pg_catalog\.count\(\*\)/ } $stderr =~ /plan:\n(\{.*?^\})/msg;

	is(scalar(@plans), 1, 'a queue is one query over the facts');
	unlike($plans[0], qr/"JIT"/, 'which is not compiled');
}

# Where nobody waits, the facts are left alone.
{
	my ($database, @warehouse) = make_warehouse('plain', 1);

	add_facts($database, $warehouse[0]);
	my ($result, @plans) = plans_of($database, 'SELECT count(*) FROM datamart_users_queue()');
	is($result, 0, 'an empty queue');
	is(scalar(grep { encode_json($_) =~ /facts/ } @plans), 0, 'for which no fact is read');
}

# Of foreign facts only those asked for travel, and counted.
{
	my ($there) = make_warehouse('plain', 1);

	add_facts($there, 'dwh.facts');
	$node->safe_psql('postgres', 'CREATE DATABASE here');
	$node->safe_psql('here', <<"SQL");
CREATE EXTENSION postgres_fdw;
CREATE SERVER there FOREIGN DATA WRAPPER postgres_fdw
	OPTIONS (host '@{[$node->host]}', port '@{[$node->port]}', dbname '$there');
CREATE USER MAPPING FOR CURRENT_USER SERVER there;
CREATE SCHEMA dwh;
CREATE FOREIGN TABLE dwh.far_facts (action_dimension_id_user integer, action_at timestamp)
	SERVER there OPTIONS (schema_name 'dwh', table_name 'facts');
CREATE VIEW dwh.seen_facts AS SELECT * FROM dwh.far_facts;
CREATE TABLE dwh.mixed_facts (action_dimension_id_user integer, action_at timestamp) PARTITION BY RANGE (action_at);
CREATE TABLE dwh.near_facts PARTITION OF dwh.mixed_facts FOR VALUES FROM ('2030-01-01') TO ('2031-01-01');
ALTER TABLE dwh.mixed_facts ATTACH PARTITION dwh.far_facts FOR VALUES FROM ('2000-01-01') TO ('2030-01-01');
CREATE TABLE dwh.dimension_users (dimension_user_id integer PRIMARY KEY, modified boolean);
INSERT INTO dwh.dimension_users SELECT n, n <= 3 FROM generate_series(1, ${\USERS}) n;
CREATE PROCEDURE dwh.update_datamart_user(p_id integer) LANGUAGE sql AS 'SELECT 1';
CREATE EXTENSION datamart_users;
ANALYZE dwh.dimension_users;
SQL
	my $expected = $node->safe_psql($there, <<'SQL');
SELECT string_agg(concat(n, ':', c), ' ' ORDER BY c DESC, n) FROM (
	SELECT n, (SELECT count(*) FROM dwh.facts WHERE action_dimension_id_user = n) AS c
	FROM generate_series(1, 3) n) x
SQL
	for my $facts (qw(far_facts seen_facts mixed_facts))
	{
		my ($result, @plans) = plans_of('here', <<"SQL");
SET datamart_users.facts_table = 'dwh.$facts';
SELECT string_agg(concat(dimension_user_id, ':', action_count), ' ' ORDER BY action_count DESC, dimension_user_id)
FROM datamart_users_queue();
SQL
		my @remote;
		my $travelled = 0;

		walk($_, sub {
				return unless defined $_[0]->{'Remote SQL'};
				push @remote, $_[0]->{'Remote SQL'};
				$travelled += $_[0]->{'Actual Rows'} * $_[0]->{'Actual Loops'};
			}) for @plans;
		is($result, $expected, "$facts: the right rows");
		is(scalar(@remote), 1, "$facts: one remote query");
		like($remote[0], qr/= ANY \('\{1,2,3\}'::bigint\[\]\)/, "$facts: the server there is told whom");
		like($remote[0], qr/count\(\*\).*GROUP BY/, "$facts: and counts") unless $facts eq 'mixed_facts';
		cmp_ok($travelled, '<=', 3, "$facts: so $travelled rows travel") unless $facts eq 'mixed_facts';
	}
}

$node->stop;
done_testing();
