# doc/reference.md says what there is: every function, table, view, column and
# setting, with the comments of the catalog; nothing is without one, and what
# \df and \d show reads as a sentence does.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $page = slurp_file("$FindBin::Bin/../../doc/reference.md");
my $node = new_node('reference');
add_warehouse($node, 'w', 1);

my $printed = run_log_of('-f', "$FindBin::Bin/../reference.sql");
my %here = map { $_ => 1 } split /\n/, $printed;
my %there = map { $_ => 1 } split /\n/, $page;

is(join("\n", grep { !$there{$_} } split /\n/, $printed), '', 'nothing is missing in doc/reference.md; "make reference" writes it');
is(join("\n", grep { !$here{$_} } split /\n/, $page), '', 'nothing in it is too much');
is($page, $printed, 'and all is in order');

unlike($page, qr/NO COMMENT/, 'no object is without a comment');
like($page, qr/^\| `max_users_per_cycle` .*`1000`/m, 'settings are there');
like($page, qr/^datamart_users_run_cycle\(max_users integer DEFAULT NULL/m, 'functions are there, with arguments and defaults');
like($page, qr/^### `datamart_users_cycles`$/m, 'tables are there');
like($page, qr/^### `datamart_users_progress`$/m, 'views are there');

# Functions are told in small letters, as the server's own are; tables and views
# by a sentence, or by their own name.
is($node->safe_psql('w', <<'SQL'), '', 'comments begin alike');
SELECT relname FROM pg_class c
WHERE relname LIKE 'datamart\_users\_%' AND relkind IN ('r', 'v') AND obj_description(oid, 'pg_class') !~ '^([A-Z]|datamart_users_)'
UNION ALL
SELECT proname FROM pg_proc WHERE proname LIKE 'datamart\_users\_%' AND obj_description(oid, 'pg_proc') !~ '^[a-z]'
SQL

# What stands in one line of a terminal is read.
is($node->safe_psql('w', <<'SQL'), '', 'comments on objects and columns are short');
SELECT objoid::regclass::text, objsubid, description FROM pg_description
WHERE classoid = 'pg_class'::regclass AND objoid::regclass::text LIKE 'datamart\_users\_%' AND length(description) > 105
UNION ALL
SELECT objoid::regproc::text, objsubid, description FROM pg_description
WHERE classoid = 'pg_proc'::regclass AND objoid::regproc::text LIKE 'datamart\_users\_%' AND length(description) > 105
SQL

# A setting that there is not is refused.
for my $setting ('max_wokers', 'max_workers_', 'Maxworkers')
{
	my (undef, undef, $stderr) = run_psql($node, 'w', [ "LOAD 'datamart_users'", "SET datamart_users.$setting = 3" ]);
	is(sqlstate($stderr), '42602', "datamart_users.$setting is refused");
}

# In another schema it is the same.
$node->safe_psql('w', 'DROP EXTENSION datamart_users; CREATE SCHEMA "Other place"; CREATE EXTENSION datamart_users SCHEMA "Other place"');
is(run_log_of('-f', "$FindBin::Bin/../reference.sql"), $printed, 'the schema makes no difference');

$node->stop;
done_testing();

sub run_log_of
{
	my (@arguments) = @_;
	my ($stdout, $stderr) = ('', '');

	IPC::Run::run([ $node->installed_command('psql'), '-XqAt', '-d', $node->connstr('w'), @arguments ],
		'<', \undef, '>', \$stdout, '2>', \$stderr)
	  or die "psql failed: $stderr";
	is($stderr, '', 'it is printed without a word');
	return $stdout;
}
