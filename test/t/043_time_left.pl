# What is left of a cycle is weighed by the number of actions: those who come
# first have the most, and take longest.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant {
	HEAVY => 8,
	LIGHT => 900,
	DONE => 30,
};

my $node = new_node('time_left');
add_warehouse($node, 'w', HEAVY + LIGHT);

# The first ones have 3000 actions and take half a second each.
$node->safe_psql('w', <<"SQL");
INSERT INTO dwh.facts SELECT i, CURRENT_DATE FROM generate_series(1, ${\HEAVY}) i, generate_series(1, 3000);
INSERT INTO dwh.behaviour SELECT i, 'SELECT pg_sleep(0.5)' FROM generate_series(1, ${\HEAVY}) i;
SQL

# Nothing is known before the first one is through.
my $gate = hold_gate($node, 'w');
my $cycle = $node->safe_psql('w', 'SELECT datamart_users_start_cycle(max_workers => 1)');
wait_for_gate($node, 'w', 1);
is($node->safe_psql('w', 'SELECT time_left IS NULL FROM datamart_users_progress'), 't', 'nothing is known at first');

# Up to one of the light ones, which come in order of their ids.
my $light = hold_gate($node, 'w', HEAVY + DONE + 1);
open_gate($gate);
wait_for_gate($node, 'w', 1);
wait_for_sql($node, 'w', "SELECT done = ${\(HEAVY + DONE)} FROM datamart_users_progress", 'the first light ones are through');

my ($found, $weighed, $least) = split /\|/, $node->safe_psql('w', <<'SQL');
SELECT found, time_left < (elapsed / done * (found - done)) / 2, time_left > '0' FROM datamart_users_progress
SQL
is($found, HEAVY + LIGHT, 'all were found');
is($weighed, 't', 'the light ones that are left are not taken for heavy ones')
  or diag($node->safe_psql('w', 'SELECT time_left, elapsed, done FROM datamart_users_progress'));
is($least, 't', 'but for something');

open_gate($light);
is($node->safe_psql('w', "SELECT status, processed FROM datamart_users_wait_cycle($cycle)"), 'completed|' . (HEAVY + LIGHT), 'the cycle goes on');

$node->stop;
done_testing();
