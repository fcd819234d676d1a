# pg_stat_statements counts every refresh: the CALL and the statements around
# it, in every worker, whatever kind of plan it uses.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $library = qx(pg_config --pkglibdir);
chomp $library;
plan skip_all => 'pg_stat_statements is not installed'
  unless -e "$library/pg_stat_statements.so";

my $node = new_node('statements', conf => <<'CONF');
shared_preload_libraries = 'pg_stat_statements'
CONF
add_warehouse($node, 'w', 30);
$node->safe_psql('w', 'CREATE EXTENSION pg_stat_statements');

# How often statements of that form ran, except within the procedure.
sub calls
{
	my ($like) = @_;

	return $node->safe_psql('w', <<"SQL");
SELECT coalesce(sum(calls), 0) FROM pg_stat_statements
 WHERE toplevel AND query LIKE '$like'
SQL
}

for my $mode ('force_generic_plan', 'auto', 'force_custom_plan')
{
	for my $workers (1, 2)
	{
		my $what = "$mode, $workers workers";

		$node->safe_psql('w', 'SELECT pg_stat_statements_reset()');
		$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
		is( $node->safe_psql('w', <<"SQL"), '30', "$what: all are processed");
SET datamart_users.worker_settings = 'plan_cache_mode = $mode';
SELECT processed FROM datamart_users_run_cycle(max_workers => $workers);
SQL
		is(calls('CALL dwh.update_datamart_user(%'), '30', "$what: each CALL counts");
		is(calls('UPDATE%dwh.dimension_users%WHERE%'), '30', "$what: so does each clearing");
	}
}

# A plan that is made anew in the midst of a cycle goes on counting.
$node->safe_psql('w', 'SELECT pg_stat_statements_reset()');
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
behave($node, 'w', 10, 'GRANT EXECUTE ON PROCEDURE dwh.update_datamart_user TO PUBLIC');
is($node->safe_psql('w', 'SELECT processed FROM datamart_users_run_cycle(max_workers => 1)'),
	'30', 'the procedure is altered meanwhile: all are processed');
is(calls('CALL dwh.update_datamart_user(%'), '30', 'the procedure is altered meanwhile: each CALL counts');

check_sane($node, 'w', 'at the end');
$node->stop;
done_testing();
