# A setting that there is not is an error of the next call, whenever and however
# a session has set it, and one of ours in capitals is one of ours; what is
# stored for others keeps nobody from working.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('misspelt');
add_warehouse($node, 'w', 3);

my $call = 'SELECT processed FROM datamart_users_run_cycle(1, 1)';

# What a new session has to say to these statements; $options as in PGOPTIONS.
sub says
{
	my ($options, @statements) = @_;
	local $ENV{PGOPTIONS} = $options;
	my ($status, $stdout, $stderr) = run_psql($node, 'w', [ "SET client_min_messages = 'error'", @statements ]);

	return "$stdout$stderr";
}

foreach my $case (
	[ 'SET', '', 'SET datamart_users.max_worker = 1' ],
	[ 'set_config()', '', q{SELECT set_config('datamart_users.max_worker', '1', false)} ],
	[ 'the connection', '-c datamart_users.max_worker=1' ],
	[ 'the connection, in capitals', '-c datamart_users.MAX_WORKER=1' ])
{
	my ($how, $options, @statements) = @$case;
	like(says($options, @statements, $call),
		qr/42704.*unrecognized configuration parameter "datamart_users\.max_worker".*Perhaps you meant "datamart_users\.max_workers"/is,
		"set by $how: refused, with a hint");
}
like(says('', 'SET datamart_users.max_worker = 1', 'SELECT datamart_users_start_service()'), qr/42704/, 'so is the start of a service');
like(says('', 'SET datamart_users.max_worker = 1', 'SELECT outcome FROM datamart_users_try()'), qr/42704/, 'and a rehearsal');
like(says('', 'SET datamart_users.max_worker = 1', q(SELECT detail FROM datamart_users_check() WHERE item = 'settings')),
	qr/unrecognized configuration parameter "datamart_users\.max_worker"/, 'the doctor tells it');
like(says('', 'SET datamart_users.altogether_different = 1', $call), qr/42704.*pg_settings/s, 'one like none of ours: the hint says where ours are');

# It is said once; the server has removed it by then, and refuses it from now on.
{
	my ($stdout, $stderr) = ('', '');
	my $script = "SET datamart_users.max_worker = 1;\n$call;\n$call;\nSET datamart_users.max_worker = 1;\n";

	IPC::Run::run([ $node->installed_command('psql'), '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('w') ],
		'<', \$script, '>', \$stdout, '2>', \$stderr);
	is($stdout, "1\n", 'the call after it runs');
	is(join(' ', $stderr =~ /ERROR:\s+(\w{5}):/g), '42704 42602', 'and the same name is refused at once');
}

# Ours, written otherwise.
is(says('-c datamart_users.MAX_WORKERS=2', 'SELECT processed FROM datamart_users_run_cycle(1)', 'SHOW datamart_users.max_workers') =~ s/\s+/ /gr =~ s/^ | $//gr,
	'1 2', 'one of ours in capitals is taken');

# Another extension's, and what is stored, are no business of a cycle's.
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
like(says('-c datamart_users_other.max_worker=1 -c other.datamart_users=1', $call), qr/^\s*1\s*$/, 'settings of others are theirs');
$node->safe_psql('postgres', 'ALTER DATABASE w SET datamart_users.max_worker = 1');
like(says('', $call), qr/^\s*1\s*$/, 'one that is stored keeps nobody from working');
like(says('', q(SELECT detail FROM datamart_users_check() WHERE item = 'settings')), qr/datamart_users\.max_workers is meant/, 'the doctor finds it');

$node->stop;
done_testing();
