# Who is most relevant goes first, always: a service makes its queue anew while
# it works, loses nobody by that, and takes nobody twice.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('order');

add_warehouse($node, 'w', 20);

sub looks
{
	return $node->safe_psql('w', 'SELECT looks FROM datamart_users_service');
}

# Two whole looks: the second one began after the call.
sub wait_for_looks
{
	my $looks = looks();

	wait_for_sql($node, 'w', "SELECT looks >= $looks + 2 FROM datamart_users_service", 'it has looked');
	return;
}

sub touch
{
	my ($ids, $facts) = @_;

	$node->safe_psql('w', <<"SQL");
BEGIN;
INSERT INTO dwh.facts SELECT id, now() FROM unnest('{$ids}'::integer[]) id, generate_series(1, $facts);
UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = ANY ('{$ids}');
COMMIT;
SQL
	return;
}

# Somebody who comes when the queue is there already.
my $gate = hold_gate($node, 'w', 1);
is($node->safe_psql('w', "SELECT datamart_users_start_service(1, '20 ms')"), 't', 'a service with one worker');
wait_for_gate($node, 'w', 1);
is($node->safe_psql('w', 'SELECT found FROM datamart_users_progress'), '20', 'all who wait are found');
my $urgent = hold_gate($node, 'w', 99);
$node->safe_psql('w', 'INSERT INTO dwh.dimension_users VALUES (99)');
touch(99, 5);
wait_for_looks();
is($node->safe_psql('w', 'SELECT found, done FROM datamart_users_progress'), '21|0', 'and so is who comes');
open_gate($gate);
wait_for_sql($node, 'w', "SELECT dimension_user_id = 99 FROM datamart_users_workers WHERE state = 'refreshing'", 'who has come is refreshed');
is($node->safe_psql('w', 'SELECT string_agg(dimension_user_id::text, $$,$$) FROM dwh.datamartusers'), '1', 'before all others but the one at work');

# Who is at work is not taken again, though the flag is still set, nor lost when
# it is set again.
touch(99, 1);
wait_for_looks();
is($node->safe_psql('w', 'SELECT found FROM datamart_users_progress'), '21', 'who is at work does not wait as well');
open_gate($urgent);
wait_for_sql($node, 'w', "SELECT state = 'idle' FROM datamart_users_service", 'all is done');
is(last_cycle($node, 'w', 'status, found, processed, skipped, deferred, failed'), 'completed|21|21|0|0|0', 'each once');
is($node->safe_psql('w', 'SELECT actions FROM dwh.datamartusers WHERE dimension_user_id = 99'), '6', 'with all that has come');

# A queue that changes all the time.
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
for my $round (1 .. 60)
{
	touch(join(',', map { 1 + int(rand(20)) } 1 .. 3), 1);
}
wait_for_sql($node, 'w', "SELECT state = 'idle' FROM datamart_users_service", 'it has come to rest');
is($node->safe_psql('w', 'SELECT count(*) FROM dwh.dimension_users WHERE modified'), '0', 'nobody is left');
is(last_cycle($node, 'w', 'status, found = processed, skipped, deferred, failed'), 'completed|t|0|0|0', 'nobody was taken for nothing');
my @segments = grep { /^mmap\./ } slurp_dir($node->data_dir . '/pg_dynshmem');
cmp_ok(scalar(@segments), '<=', 4, 'old queues have gone');

# Who keeps colliding gets a second turn when nobody else works.
$node->safe_psql('w', 'CREATE SEQUENCE dwh.tries');
behave($node, 'w', 3, q(DO 'BEGIN IF nextval(''dwh.tries'') <= 3 THEN RAISE serialization_failure; END IF; END'));
touch('3,4,5', 1);
wait_for_sql($node, 'w', "SELECT state = 'idle' AND NOT EXISTS (SELECT FROM dwh.dimension_users WHERE modified) FROM datamart_users_service", 'it has come to rest');
is(last_cycle($node, 'w', 'status, found, processed, deferred'), 'completed|3|3|0', 'it was refreshed in the second one');
is($node->safe_psql('w', 'SELECT last_value FROM dwh.tries'), '4', 'which was not a new one');

# Whose row somebody keeps is left alone for a while, and not lost.
my $holder = $node->background_psql('w');
$holder->query_safe('BEGIN; UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = 6');
touch('7', 1);
$node->safe_psql('w', 'SELECT count(*) FROM dwh.datamartusers');
$holder->query_safe('COMMIT');
$holder->query_safe('BEGIN; SELECT FROM dwh.dimension_users WHERE dimension_user_id = 6 FOR UPDATE');
$holder->query_safe('UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = 6');
touch('8', 1);
wait_for_sql($node, 'w', 'SELECT count(*) = 0 FROM dwh.dimension_users WHERE modified AND dimension_user_id <> 6', 'the others are refreshed');
$holder->query_safe('COMMIT');
$holder->quit;
wait_for_sql($node, 'w', 'SELECT count(*) = 0 FROM dwh.dimension_users WHERE modified', 'and so is that one, later');

is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it stops');
check_sane($node, 'w', 'a service');

$node->stop;
done_testing();
