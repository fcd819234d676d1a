# What a service counts by priority follows its queue: who has left that after
# the counts were saved on the way is in none of them at the end.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('counts');
my $counts = q(SELECT c.found, coalesce(string_agg(concat_ws(' ', p.priority, p.found, p.processed), ', ' ORDER BY p.priority), '')
  FROM datamart_users_cycles c LEFT JOIN datamart_users_cycle_priorities p USING (cycle_id)
 WHERE c.cycle_id = (SELECT max(cycle_id) FROM datamart_users_cycles) GROUP BY 1);

# Three of them have a fact of today, and three have none.
add_warehouse($node, 'w', 6);
$node->safe_psql('w', 'DELETE FROM dwh.facts WHERE action_dimension_id_user > 3');
my $gate = hold_gate($node, 'w', 1);
is($node->safe_psql('w', "SELECT datamart_users_start_service(1, '20 ms')"), 't', 'a service');
wait_for_gate($node, 'w', 1);
wait_for_sql($node, 'w', 'SELECT counted_at IS NOT NULL FROM datamart_users_cycles', 'it has saved its counts');
is($node->safe_psql('w', $counts), '6|critical 3 0, lowest 3 0', 'of all that wait');

# Of one priority somebody leaves, and of the other one all.
$node->safe_psql('w', <<'SQL');
UPDATE dwh.dimension_users SET modified = FALSE WHERE dimension_user_id > 2;
INSERT INTO dwh.datamartusers SELECT dimension_user_id, (SELECT count(*) FROM dwh.facts WHERE action_dimension_id_user = dimension_user_id) FROM dwh.dimension_users WHERE dimension_user_id > 2;
SQL
wait_for_sql($node, 'w', 'SELECT found = 2 FROM datamart_users_progress', 'they are out of the queue');
open_gate($gate);
wait_for_sql($node, 'w', "SELECT state = 'idle' FROM datamart_users_service", 'it comes to rest');
is($node->safe_psql('w', $counts), '2|critical 2 2', 'the priorities say what the cycle says');
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it ends');
check_sane($node, 'w', 'counts');

$node->stop;
done_testing();
