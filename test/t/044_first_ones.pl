# Of a backlog that is much larger than what is asked for, only those are
# counted who have recent facts, if they are enough; of the others it is
# remembered since when they have none.  Whatever is counted and remembered, the
# first ones are those of the query.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{DMU_SEED} // int(rand(1 << 30));
note("DMU_SEED=$seed");
srand($seed);

my $node = new_node('first');
my $users = 12000;

# What a session with these settings gets, or an error.
sub query
{
	my ($status, $stdout, $stderr) = run_psql($node, 'w', [@_]);
	return $status == 0 ? $stdout : $stderr;
}

sub is_exact
{
	my ($take, $what, @settings) = @_;
	my $columns = 'dimension_user_id, recency_class, activity_class, action_count, last_action_at';
	my $statement = query(@settings, "SELECT datamart_users_priority_query($take)");

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$statement =~ s/;\s*\z//;
	return is(query(@settings, "SELECT $columns FROM datamart_users_queue($take) ORDER BY queue_position"),
		query(@settings, "SELECT $columns FROM ($statement) AS q"), $what);
}

# How many are counted, and of how many it is only known that they have no
# facts since some day; by their last versions.
sub remembered
{
	my ($bits) = @_;
	return $node->safe_psql('w', <<"SQL");
SELECT count(*)
  FROM datamart_users_counts AS c,
	   generate_series(0, length(c.entries) / 40 - 1) AS i
 WHERE get_byte(c.entries, 40 * i + 39) & 32 = $bits
SQL
}

add_warehouse($node, 'w', 0);

sub start_again
{
	my ($type) = @_;

	$node->safe_psql('w', <<"SQL");
DROP TABLE dwh.facts;
CREATE TABLE dwh.facts (action_dimension_id_user integer, action_at $type, filling text) PARTITION BY RANGE (action_at);
CREATE TABLE dwh.facts_old PARTITION OF dwh.facts FOR VALUES FROM (MINVALUE) TO (CURRENT_DATE - 60);
CREATE TABLE dwh.facts_new PARTITION OF dwh.facts DEFAULT;
CREATE INDEX ON dwh.facts (action_dimension_id_user, action_at);
CREATE INDEX ON dwh.facts (action_at);
INSERT INTO dwh.facts
SELECT u, CURRENT_DATE - (u * 7919 % 10007) / 5 - n * 11, repeat('x', 200)
  FROM generate_series(1, $users) AS u, generate_series(0, u % 60) AS n
 ORDER BY 2;
INSERT INTO dwh.facts SELECT 77, CURRENT_DATE + 400, 'later';
INSERT INTO dwh.facts SELECT NULL, CURRENT_DATE FROM generate_series(1, 50);
INSERT INTO dwh.facts SELECT 2 * $users, CURRENT_DATE FROM generate_series(1, 50);
TRUNCATE dwh.dimension_users;
INSERT INTO dwh.dimension_users SELECT u FROM generate_series(1, $users + 30) AS u;
DELETE FROM datamart_users_counts;
SQL
	$node->safe_psql('w', 'VACUUM ANALYZE dwh.facts, dwh.dimension_users');
}

foreach my $type ('timestamptz', 'timestamp', 'date')
{
	start_again($type);
	is_exact(20, "$type: twenty");
	cmp_ok(remembered(0), '<', $users / 2, "$type: fewer than half are counted");
	cmp_ok(remembered(32), '>', $users / 2, "$type: of more than half it is known that they come later");
	is_exact($_, "$type: $_") for 1, 100, 2000;
	is_exact(1500, "$type in another zone", "SET timezone = '$_'") for 'Pacific/Kiritimati', 'Etc/GMT+12';
	is_exact(3000, "$type with days that are $_", "SET datamart_users.recency_days = '$_'") for '1, 2, 3', '20, 40, 200', '5, 30, 90';
	my $counted = remembered(0);
	is_exact(20, "$type: twenty again");
	is(remembered(0), $counted, "$type: what is known is not counted again");
	is_exact($_, "$type: $_ of all") for 11000, $users + 30, 1000000;
	cmp_ok(remembered(0), '>=', $users + 30, "$type: all are counted for the whole");
	is(query('SELECT sum(waiting) FROM datamart_users_backlog'), $users + 30, "$type: as the view has it");
}

# With an ETL that keeps to its contract.
start_again('timestamptz');
my $wrong = 0;
for my $round (1 .. 60)
{
	my $some = "dimension_user_id % 97 = " . int(rand(97));
	my $age = int(rand(2) ? rand(10) : rand(120));

	$node->safe_psql('w', (
		"UPDATE dwh.dimension_users SET modified = TRUE WHERE $some; INSERT INTO dwh.facts SELECT dimension_user_id, CURRENT_DATE - $age, 'x' FROM dwh.dimension_users WHERE $some",
		"UPDATE dwh.dimension_users SET modified = TRUE WHERE $some; DELETE FROM dwh.facts WHERE action_at > CURRENT_DATE - $age AND action_dimension_id_user IN (SELECT dimension_user_id FROM dwh.dimension_users WHERE $some)",
		"UPDATE dwh.dimension_users SET modified = NOT modified WHERE $some",
		"VACUUM FULL dwh.dimension_users",
		"ANALYZE dwh.facts",
		"DELETE FROM datamart_users_counts WHERE ctid IN (SELECT ctid FROM datamart_users_counts ORDER BY random() LIMIT 20)")[ rand(6) ]);
	my $days = ('7, 30, 90', '3, 30, 90', '10, 40, 100')[ rand(3) ];
	my $zone = ('UTC', 'Asia/Tokyo', 'America/Lima')[ rand(3) ];
	$wrong++ unless is_exact((1, 50, 500, 3000)[ rand(4) ], "round $round", "SET datamart_users.recency_days = '$days'", "SET timezone = '$zone'");
	last if $wrong > 2;
}

done_testing();
