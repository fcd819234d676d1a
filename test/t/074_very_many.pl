# A backlog of more datamart users than counts are remembered for.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('very_many');

add_warehouse($node, 'w', 50);
$node->safe_psql('w', <<'SQL');
CREATE TABLE dwh.many (dimension_user_id integer, modified boolean);
INSERT INTO dwh.many SELECT n, TRUE FROM generate_series(2000100, 1, -1) AS n;
CREATE INDEX ON dwh.many (dimension_user_id) WHERE modified;
ANALYZE dwh.many;
ALTER DATABASE w SET datamart_users.users_table = 'dwh.many';
SQL

my $columns = 'dimension_user_id, recency_class, activity_class, action_count, last_action_at';
my $statement = $node->safe_psql('w', 'SELECT datamart_users_priority_query(200)');
$statement =~ s/;\s*\z//;
my $first = $node->safe_psql('w', "SELECT $columns FROM ($statement) AS q");

foreach my $how ('enable_seqscan = on', 'enable_seqscan = off')
{
	is($node->safe_psql('w', "SET $how; SELECT $columns FROM datamart_users_queue(200) ORDER BY queue_position"),
		$first, "the first of two million, $how");
}
is($node->safe_psql('w', 'SELECT sum(waiting) FROM datamart_users_backlog'), 2000100, 'all of them wait');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_stale(300)'), 300, 'and the first of them are told');
is($node->safe_psql('w', 'SELECT backlog, found, processed, failed FROM datamart_users_run_cycle(50, 2)'),
	'2000100|50|50|0', 'a cycle takes the first of them');
is($node->safe_psql('w', 'SELECT count(*) FROM dwh.many WHERE NOT modified'), 50, 'these are done');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_counts'), 0, 'nothing is remembered');

done_testing();
