# ALTER EXTENSION UPDATE from an earlier version, 0.9, that this test makes up:
# objects are fresh afterwards, nothing that was written or granted is lost,
# whatever runs meanwhile comes to an end, and libraries that do not fit the
# objects say so.
#
# The server is a copy of the installed one, with a folder of its own for
# extensions: nothing of this is installed for anybody else.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename;
use File::Path qw(make_path);
use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $source = abs_path("$FindBin::Bin/../..");
my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
my %folder;
foreach my $what (qw(bindir sharedir pkglibdir))
{
	chomp($folder{$what} = `$pg_config --$what`);
}
plan skip_all => 'the sources are not here' unless -e "$source/src/shared/history.c" && -e "$source/sql/begin.sql";
plan skip_all => 'the extension is not installed for this server' unless -e "$folder{sharedir}/extension/datamart_users--1.0.sql";
plan skip_all => 'make or a compiler is missing' if system('(make --version && cc --version) >/dev/null 2>&1') != 0;
plan skip_all => 'the programs of the server are not in a folder "bin"' unless basename($folder{bindir}) eq 'bin';

my $root = PostgreSQL::Test::Utils::tempdir();
my ($node, $gate, $caller, $stdout, $stderr);

#
# The copy: a server looks for its files from where its program is.
#
make_path("$root$folder{bindir}", "$root$folder{sharedir}/extension", "$root$folder{pkglibdir}");
system_or_bail('cp', '-RL', "$folder{bindir}/.", "$root$folder{bindir}");
foreach my $part ($folder{sharedir}, "$folder{sharedir}/extension", $folder{pkglibdir})
{
	foreach my $entry (grep { !/^\.\.?$/ && !/^datamart_users/ } slurp_dir($part))
	{
		symlink "$part/$entry", "$root$part/$entry" or die "$part/$entry: $!" unless -e "$root$part/$entry";
	}
}
my $extensions = "$root$folder{sharedir}/extension";

# In the place of a library that processes have loaded, not over it.
sub install
{
	my ($file, $target) = @_;

	system_or_bail('cp', $file, "$target.new");
	rename "$target.new", $target or die "$target: $!";
	return;
}

sub write_file
{
	my ($name, $text) = @_;

	unlink $name;
	append_to_file($name, $text);
	return;
}

#
# The earlier version: its library writes no last_elapsed, and has no rehearsal.
#
my $older = PostgreSQL::Test::Utils::tempdir();
system_or_bail('cp', '-R', map({ "$source/$_" } qw(Makefile src sql test datamart_users.control)), $older);
system("rm -f $older/src/*/*.o $older/src/*/*.bc $older/*.so");
sub change
{
	my ($file, $from, $to) = @_;
	my $text = slurp_file("$older/$file");

	$text =~ s/$from/$to/ or die "$file has no $from";
	write_file("$older/$file", $text);
	return;
}
change('src/shared/history_profile.c', qr/, last_elapsed\)"/, ')"');
change('src/shared/history_profile.c', qr/\$15, \$16\)"/, '$15)"');
change('src/caller/try.c', qr/PG_FUNCTION_INFO_V1\(datamart_users_try\)/, 'PG_FUNCTION_INFO_V1(datamart_users_rehearse)');
change('src/caller/try.c', qr/^datamart_users_try\(PG/m, 'datamart_users_rehearse(PG');
system("env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make -s -C $older with_llvm=no EXTVERSION=0.9 COPT=-O0 datamart_users.so >$older/log 2>&1") == 0
  or BAIL_OUT('could not build the earlier library: ' . slurp_file("$older/log"));

# Its script is that of 1.0, less and otherwise.
my $fresh = slurp_file("$folder{sharedir}/extension/datamart_users--1.0.sql");
my $script = $fresh;

# statement PATTERN: that of 1.0 which begins with it.
sub statement
{
	my ($pattern) = @_;

	$fresh =~ /^($pattern.*?;)$/ms or die "no statement $pattern";
	return "$1\n";
}
sub comments { my ($name) = @_; return join '', $fresh =~ /^(COMMENT ON [^']*\.\Q$name\E\b.*;\n)/mg }
sub without
{
	my ($statements) = @_;

	foreach my $text ($statements =~ /(.*?;\n)/sg)
	{
		$script =~ s/\Q$text\E// or die "not in the script: $text";
	}
	return;
}

sub otherwise
{
	my ($from, $to) = @_;

	$script =~ s/\Q$from\E/$to/ or die "not in the script: $from";
	return;
}

my $prefix = '\@extschema\@\.datamart_users';
my $rehearsal = statement("CREATE FUNCTION ${prefix}_try\\(") . comments('datamart_users_try');
my $states = statement("CREATE VIEW ${prefix}_attempt_states");
my $state_comment = statement("COMMENT ON COLUMN ${prefix}_attempt_states\\.state");
my $drain = statement("CREATE VIEW ${prefix}_drain") . comments('datamart_users_drain');
my $service = statement("CREATE FOREIGN TABLE ${prefix}_service_source") . statement("COMMENT ON FOREIGN TABLE ${prefix}_service_source")
  . statement("CREATE VIEW ${prefix}_service AS") . comments('datamart_users_service');
my $elapsed_comment = statement("COMMENT ON COLUMN ${prefix}_cycle_profiles\\.last_elapsed");
my $dump = statement("SELECT pg_catalog\\.pg_extension_config_dump\\('${prefix}_attempts'");
my $index = statement('CREATE INDEX datamart_users_attempts_cycle_id_idx');
my $failures_comment = statement("COMMENT ON TABLE ${prefix}_failures ");
my $report = statement("CREATE FUNCTION ${prefix}_report\\(") . comments('datamart_users_report');
my ($head) = $fresh =~ /^(SET LOCAL search_path.*?^DROP FUNCTION \S*refuse_existing\(\);\n)/ms;
my ($tail) = $fresh =~ /^(CREATE FUNCTION \S*settle_owners\(\).*?^DROP FUNCTION \S*revoke_all\(\);\n)/ms;

without($_) for $rehearsal, $drain, $service, $state_comment, $elapsed_comment, $dump, $index;
otherwise($states, $states =~ s/,\s+CASE WHEN p\.dimension_user_id.*? AS state$//msr);
otherwise(",\n\tlast_elapsed interval\n)", "\n)");
otherwise($failures_comment, $failures_comment =~ s/IS '.*'/IS 'those that fail'/r);
otherwise('planned_alone bigint NOT NULL DEFAULT 0', 'planned_alone bigint NOT NULL');
otherwise(" CHECK (outcome IN ('failed', 'deferred'))", '');
otherwise("datamart_users_report(cycle_id bigint DEFAULT NULL)\nRETURNS text\nAS 'MODULE_PATHNAME', 'datamart_users_report'\nLANGUAGE C VOLATILE",
	"datamart_users_report(cycle_id bigint DEFAULT 1)\nRETURNS text\nAS 'MODULE_PATHNAME', 'datamart_users_report'\nLANGUAGE C STABLE COST 7");
$script =~ s/^\t\@extschema\@\.datamart_users_(?:drain|service),\n//mg == 2 or die 'nothing to grant';

my $update = <<"SQL" . $tail . <<'SQL';
\\echo Use "ALTER EXTENSION datamart_users UPDATE" to load this file. \\quit
$head
$rehearsal$drain$service
@{[$states =~ s/CREATE VIEW/CREATE OR REPLACE VIEW/r]}$state_comment
ALTER TABLE \@extschema\@.datamart_users_cycle_profiles ADD last_elapsed interval, ALTER planned_alone SET DEFAULT 0;
$elapsed_comment$failures_comment$dump$index
ALTER TABLE \@extschema\@.datamart_users_attempts ADD CHECK (outcome IN ('failed', 'deferred'));
@{[$report =~ s/CREATE FUNCTION/CREATE OR REPLACE FUNCTION/r]}
SQL
GRANT SELECT ON @extschema@.datamart_users_drain, @extschema@.datamart_users_service TO pg_monitor;
SQL

sub install_older
{
	write_file("$extensions/datamart_users.control",
		slurp_file("$source/datamart_users.control") =~ s/^default_version = '\K[^']*/0.9/mr);
	write_file("$extensions/datamart_users--0.9.sql", $script);
	unlink "$extensions/datamart_users--0.9--1.0.sql", "$extensions/datamart_users--1.0.sql";
	install("$older/datamart_users.so", "$root$folder{pkglibdir}/datamart_users.so");
	return;
}

sub install_newer
{
	install("$source/datamart_users.control", "$extensions/datamart_users.control");
	write_file("$extensions/datamart_users--0.9--1.0.sql", $update);
	write_file("$extensions/datamart_users--1.0.sql", $fresh);
	install("$folder{pkglibdir}/datamart_users.so", "$root$folder{pkglibdir}/datamart_users.so");
	return;
}

#
# All that an extension is to the catalogs.
#
my $acl = q((SELECT string_agg(format('%s %s by %s', coalesce(nullif(a.grantee, 0)::regrole::text, 'PUBLIC'), a.privilege_type, a.grantor::regrole), ', ' ORDER BY a.grantee::regrole::text, a.privilege_type) FROM aclexplode(X) a));
sub acl { my ($column) = @_; return $acl =~ s/X/$column/r }
my $members = q(SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'datamart_users');
my $relations = "SELECT c.* FROM pg_class c JOIN ($members) m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid";
my $objects = <<"SQL";
SET search_path = pg_catalog;
SELECT line FROM (
SELECT format('extension %s in %s of %s', extversion, extnamespace::regnamespace, extowner::regrole) FROM pg_extension WHERE extname = 'datamart_users'
UNION ALL
SELECT format('dumped: %s where "%s"', table_oid::regclass, condition) FROM pg_extension, unnest(extconfig, extcondition) u (table_oid, condition) WHERE extname = 'datamart_users'
UNION ALL
SELECT format('member %s %s: %s', o.type, o.identity, obj_description(m.objid, (SELECT relname FROM pg_class WHERE oid = m.classid)))
  FROM ($members) m, pg_identify_object(m.classid, m.objid, 0) o
UNION ALL
SELECT format('%s %s depends on %s (%s)', o.type, o.identity, pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid), d.deptype)
  FROM ($members) m JOIN pg_depend d USING (classid, objid), pg_identify_object(m.classid, m.objid, 0) o
UNION ALL
SELECT format('%s %s had at first: %s', o.type, o.identity, @{[acl('i.initprivs')]})
  FROM ($members) m JOIN pg_init_privs i ON i.classoid = m.classid AND i.objoid = m.objid, pg_identify_object(m.classid, m.objid, 0) o
 WHERE EXISTS (SELECT FROM aclexplode(i.initprivs) a WHERE a.grantee <> a.grantor)
UNION ALL
SELECT format('%s of %s: %s %s', p.oid::regprocedure, p.proowner::regrole, @{[acl(q(coalesce(p.proacl, acldefault('f', p.proowner))))]}, pg_get_functiondef(p.oid))
  FROM pg_proc p JOIN ($members) m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
UNION ALL
SELECT format('%s, %s %s, of %s: %s %s %s', oid::regclass, relkind, relpersistence, relowner::regrole, @{[acl(q(coalesce(relacl, acldefault('r', relowner))))]}, reloptions,
		CASE WHEN relkind = 'v' THEN pg_get_viewdef(oid) END) FROM ($relations) c
UNION ALL
SELECT format('%s.%s, %s: %s %s %s%s%s %s %s: %s', c.oid::regclass, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, a.attstorage,
		pg_get_expr(d.adbin, d.adrelid), @{[acl('a.attacl')]}, col_description(c.oid, a.attnum))
  FROM ($relations) c JOIN pg_attribute a ON a.attrelid = c.oid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
 WHERE a.attnum > 0
UNION ALL
SELECT pg_get_indexdef(i.indexrelid) FROM ($relations) c JOIN pg_index i ON i.indrelid = c.oid
UNION ALL
SELECT format('%s %s: %s', c.oid::regclass, k.conname, pg_get_constraintdef(k.oid)) FROM ($relations) c JOIN pg_constraint k ON k.conrelid = c.oid
UNION ALL
SELECT format('%s from %s: %s', t.ftrelid::regclass, s.srvname, t.ftoptions) FROM ($relations) c JOIN pg_foreign_table t ON t.ftrelid = c.oid JOIN pg_foreign_server s ON s.oid = t.ftserver
UNION ALL
SELECT format('server %s of %s: %s', srvname, srvowner::regrole, @{[acl('srvacl')]}) FROM pg_foreign_server
UNION ALL
SELECT format('wrapper %s of %s: %s', fdwname, fdwowner::regrole, @{[acl('fdwacl')]}) FROM pg_foreign_data_wrapper
) l (line) ORDER BY line COLLATE "C"
SQL

sub objects_of { my ($database) = @_; return $node->safe_psql($database, $objects) }

# What the tables hold, and the page of the reference.
sub contents_of
{
	my ($database) = @_;
	my $result = '';

	foreach my $table (qw(cycles cycle_priorities slowest failures contention attempts parked seen))
	{
		$result .= $node->safe_psql($database, "SELECT '$table', t FROM datamart_users_$table t ORDER BY t::text") . "\n";
	}
	return $result;
}

sub reference_of
{
	my ($database) = @_;
	my ($page, $errors);

	IPC::Run::run([ $node->installed_command('psql'), '-XAtq', '-d', $node->connstr($database), '-f', "$source/test/reference.sql" ],
		'<', \undef, '>', \$page, '2>', \$errors) or die $errors;
	return $page;
}

# same GOT EXPECTED WHAT: texts of lines, of which only what differs is shown.
sub same
{
	my ($got, $expected, $what) = @_;
	my %count;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$count{$_}++ for grep { length } split /\n/, $got;
	$count{$_}-- for grep { length } split /\n/, $expected;
	is(join("\n", map { ($count{$_} > 0 ? 'too much: ' : 'lacks: ') . $_ } grep { $count{$_} } sort keys %count), '', $what);
	return;
}

sub copy_database
{
	my ($from, $to) = @_;

	$node->safe_psql('postgres', qq(CREATE DATABASE "$to" TEMPLATE "$from"));
	return;
}

#
# A warehouse of 0.9: one has failed, one is parked; somebody was granted what
# scripts grant to nobody, and the defaults give new objects away.
#
install_older();
$node = new_node('update', new => { install_path => "$root" . dirname($folder{bindir}) });
add_warehouse($node, 'old', 6);
behave($node, 'old', 3, 'SELECT 1 / 0');
my $defaults = 'ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader; ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO reader;';
$node->safe_psql('old', <<"SQL");
CREATE ROLE etl LOGIN;
CREATE ROLE reader;
CREATE ROLE dba LOGIN;
GRANT USAGE ON SCHEMA dwh TO etl;
GRANT ALL ON ALL TABLES IN SCHEMA dwh TO etl;
GRANT EXECUTE ON FUNCTION datamart_users_run_cycle TO etl;
GRANT SELECT ON datamart_users_suspects, datamart_users_attempts, datamart_users_attempt_states TO reader;
$defaults
SELECT datamart_users_park(4, 'known');
SQL
is($node->safe_psql('old', 'SELECT status, processed, failed FROM datamart_users_run_cycle()'), 'completed|4|1', 'a cycle of 0.9');
copy_database('old', $_) for qw(meanwhile held served late);
my $before = contents_of('old');

#
# Whatever of 0.9 runs when the files of 1.0 come.
#
sub begin_cycle
{
	my ($database) = @_;

	$node->safe_psql($database, 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id IN (1, 2, 5)');
	$gate = hold_gate($node, $database);
	$node->safe_psql($database, 'SELECT datamart_users_start_cycle(NULL, 2)');
	wait_for_gate($node, $database, 2);
	return;
}

sub alter { my ($database) = @_; $node->safe_psql($database, 'ALTER EXTENSION datamart_users UPDATE'); return }

begin_cycle('meanwhile');
install_newer();
alter('meanwhile');
is($node->safe_psql('meanwhile', 'SELECT found, done FROM datamart_users_progress'), '3|0', 'an update does not wait for a cycle, which is seen from both libraries');
open_gate($gate);
is($node->safe_psql('meanwhile', 'SELECT status, processed, failed FROM datamart_users_wait_cycle(2)'), 'completed|3|0', 'it ends well, with the library of 0.9 over the objects of 1.0');
is($node->safe_psql('meanwhile', 'SELECT status, processed, failed FROM datamart_users_run_cycle()'), 'completed|0|0', 'and so does the next one');
check_sane($node, 'meanwhile', 'meanwhile');

# One that has to write while the update is not committed waits for it.
install_older();
begin_cycle('held');
my $kept = $node->background_psql('late', on_error_stop => 0);
$kept->query_safe('SELECT count(*) FROM datamart_users_queue()');
install_newer();
my $dba = $node->background_psql('held');
$dba->query_safe($_) for 'BEGIN', 'ALTER EXTENSION datamart_users UPDATE';
open_gate($gate);
wait_for_sql($node, 'held', "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND locktype = 'relation'", 'the cycle waits for the update');
$dba->query_safe('COMMIT');
$dba->quit;
is($node->safe_psql('held', 'SELECT status, processed, failed FROM datamart_users_wait_cycle(2)'), 'completed|3|0', 'it ends well');
check_sane($node, 'held', 'held');

# A session that has kept the library of 0.9 has not what the script asks for.
$kept->query('ALTER EXTENSION datamart_users UPDATE');
like($kept->{stderr}, qr/could not find function "datamart_users_try" in file/, 'no update in a session from before');
is($node->safe_psql('late', q(SELECT extversion FROM pg_extension WHERE extname = 'datamart_users')), '0.9', 'nothing has happened');
$kept->quit;

# Workers that start later load the new library, which does not take the objects.
install_older();
$node->safe_psql('late', 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id IN (1, 2, 5)');
my $other = $node->background_psql('late');
$other->query_safe($_) for 'BEGIN', 'LOCK TABLE dwh.facts';
$caller = start_psql($node, 'late', 'SELECT status, processed, failed, workers FROM datamart_users_run_cycle(NULL, 3)');
wait_for_sql($node, 'late', "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'dwh.facts'::regclass", 'a coordinator waits');
install_newer();
$other->quit;
(undef, $stdout, $stderr) = finish($caller);
is($stdout, 'completed|3|0|1', 'a coordinator of 0.9 works without the workers of 1.0') or diag($stderr);
check_sane($node, 'late', 'late');

# The same with those of a service, which an update ends.
install_older();
is($node->safe_psql('served', "SELECT datamart_users_start_service(2, '20 ms')"), 't', 'a service of 0.9');
install_newer();
$node->safe_psql('served', 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id IN (1, 2, 5)');
wait_for_sql($node, 'served', 'SELECT count(*) = 0 FROM dwh.dimension_users WHERE modified AND dimension_user_id IN (1, 2, 5)', 'it works on');
alter('served');
wait_for_sql($node, 'served', 'SELECT count(*) = 0 FROM datamart_users_service', 'an update ends it');
is(last_cycle($node, 'served', 'status, sqlstate, message'), 'failed|55000|extension "datamart_users" was updated from version 0.9 to 1.0', 'and the history says so');
is($node->safe_psql('served', "SELECT datamart_users_start_service(2, '20 ms')"), 't', 'it is started again');
is($node->safe_psql('served', 'SELECT datamart_users_stop_service()'), 't', 'and works with the objects of 1.0');
check_sane($node, 'served', 'served');

#
# The library of 1.0 over the objects of 0.9: refused with what to do, or it works.
#
my %works = map { $_ => 1 } qw(datamart_users_check datamart_users_cancel_cycle datamart_users_stop_service datamart_users_source_handler);
my $calls = q(SELECT p.proname, format('%s %I(%s)', CASE p.prokind WHEN 'p' THEN 'CALL' ELSE 'SELECT' END, p.proname,
		(SELECT string_agg(CASE WHEN i < p.pronargs - p.pronargdefaults OR p.prokind = 'p'
			THEN CASE t WHEN 'bigint'::regtype THEN '1' WHEN 'text'::regtype THEN '''x''' ELSE 'NULL' END END, ', ' ORDER BY i)
		   FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY u (t, n), LATERAL (SELECT (n - 1)::integer) k (i)))
	FROM pg_proc p WHERE p.proname LIKE 'datamart\_users\_%' ORDER BY 1);
foreach my $line (split /\n/, $node->safe_psql('old', $calls))
{
	my ($name, $call) = split /\|/, $line;

	next if $name eq 'datamart_users_source_handler';
	(undef, $stdout, $stderr) = run_psql($node, 'old', $call);
	if ($works{$name})
	{
		is(sqlstate($stderr), '', "$call over the objects of 0.9 works") or diag($stderr);
		next;
	}
	is(sqlstate($stderr), '55000', "$call over the objects of 0.9") or diag($stderr);
	like($stderr, qr/has version 0\.9 .*library version 1\.0\nHINT:  Run ALTER EXTENSION datamart_users UPDATE\./, 'names the update');
}
like($node->safe_psql('old', "SELECT string_agg(hint, ' ') FROM datamart_users_check() WHERE status = 'error'"), qr/ALTER EXTENSION datamart_users UPDATE/, 'so does the doctor');
foreach my $view (qw(progress workers backlog cycles cycle_priority_rates failures metrics periods attempt_states))
{
	(undef, $stdout, $stderr) = run_psql($node, 'old', "SELECT count(*) FROM datamart_users_$view");
	like(sqlstate($stderr), qr/^(55000)?$/, "the view datamart_users_$view is shown, or refused") or diag($stderr);
	like($stderr, qr/^$|ALTER EXTENSION datamart_users UPDATE/, 'and what to do is told');
}
is($node->safe_psql('old', 'SELECT count(*) FROM dwh.dimension_users WHERE modified'), 2, 'nothing has happened');

#
# The update: rolled back, within a block, and for good.
#
my $objects_before = objects_of('old');
$dba = $node->background_psql('old');
$dba->query_safe($_) for 'BEGIN', 'ALTER EXTENSION datamart_users UPDATE';
is($dba->query_safe('SELECT count(*) FROM datamart_users_queue()'), '0', 'in the block of the update it has taken place');
is($dba->query_safe('SELECT count(*) >= 0 FROM datamart_users_drain'), 't', 'with its objects');
$dba->query_safe('ROLLBACK');
same($dba->query_safe(q(SELECT extversion FROM pg_extension WHERE extname = 'datamart_users')), '0.9', 'rolled back');
$dba->quit;
same(objects_of('old'), $objects_before, 'everything is as before');
same(contents_of('old'), $before, 'and nothing lost');
copy_database('old', $_) for qw(owned taken dumped);

$node->safe_psql('postgres', 'CREATE DATABASE fresh');
$node->safe_psql('fresh', "$defaults CREATE EXTENSION datamart_users");
my $expected = objects_of('fresh');
alter('old');
$node->safe_psql('fresh', <<'SQL');
GRANT EXECUTE ON FUNCTION datamart_users_run_cycle TO etl;
GRANT SELECT ON datamart_users_suspects, datamart_users_attempts, datamart_users_attempt_states TO reader;
SQL
my $granted = objects_of('fresh');
same(objects_of('old'), $granted, 'updated: as fresh, with what was granted to others');
is(reference_of('old'), reference_of('fresh'), 'the reference is the same');
same(contents_of('old'), $before, 'history, failures and parked datamart users are there');
is($node->safe_psql('old', 'SELECT dimension_user_id, reason FROM datamart_users_parked'), '4|known', 'the parked one');
is($node->safe_psql('old', "SET SESSION AUTHORIZATION etl; SELECT cycle_id, status, processed FROM datamart_users_run_cycle()"), '2|completed|0', 'the next cycle has the next number, and who might run cycles may');
is($node->safe_psql('old', 'SELECT outcome FROM datamart_users_try(5)'), 'skipped', 'new functions work');
is($node->safe_psql('old', "SELECT count(*) FROM datamart_users_check() WHERE status = 'error'"), 0, 'the doctor has no complaint');
$node->safe_psql('old', 'SELECT datamart_users_retry(3), datamart_users_retry(4); DELETE FROM dwh.behaviour');
is($node->safe_psql('old', 'SELECT status, processed FROM datamart_users_run_cycle()'), 'completed|2', 'those that were held back are refreshed');
check_sane($node, 'old', 'updated');

#
# Dumped and restored: updated, and by way of a dump in the place of an update.
#
sub dump_and_restore
{
	my ($from, $to) = @_;
	my $file = $node->basedir . "/$from.sql";

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->command_ok([ $node->installed_command('pg_dump'), '-d', $node->connstr($from), '-f', $file ], "$from: dumped");
	$node->safe_psql('postgres', "CREATE DATABASE $to");
	$node->command_ok([ $node->installed_command('psql'), '-Xqo', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($to), '-f', $file ], "$from: restored");
	return;
}

dump_and_restore('old', 'restored');
same(objects_of('restored'), $granted, 'a dump of the updated one brings the same');
same(contents_of('restored') =~ s/^seen\|.*\n//mgr, contents_of('old') =~ s/^seen\|.*\n//mgr, 'with what it remembers');
dump_and_restore('dumped', 'migrated');
same(objects_of('migrated'), $granted, 'so does one of 0.9');
same(contents_of('migrated'), $before =~ s/^(?:seen|attempts)\|.*\n//mgr, 'with what 0.9 has dumped');
is($node->safe_psql('restored', 'SELECT status FROM datamart_users_run_cycle()'), 'completed', 'a cycle runs there');

#
# Siblings: another schema; from the script of 0.9 at once; with an owner who is
# no superuser; something in the way.
#
foreach my $database (qw(there here))
{
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE SCHEMA "The old One"; CREATE EXTENSION datamart_users SCHEMA "The old One"'
		  . ($database eq 'there' ? " VERSION '0.9'" : ''));
}
alter('there');
same(objects_of('there'), objects_of('here'), 'in another schema, whose name needs quotes');
same(reference_of('there'), reference_of('here'), 'with the same reference');

unlink "$extensions/datamart_users--1.0.sql";
$node->safe_psql('postgres', 'CREATE DATABASE chain');
$node->safe_psql('chain', "$defaults CREATE EXTENSION datamart_users");
same(objects_of('chain'), $expected, 'created by way of 0.9');
install_newer();

$node->safe_psql('owned', <<'SQL');
DROP EXTENSION datamart_users;
CREATE ROLE creator SUPERUSER;
SET ROLE creator;
CREATE EXTENSION datamart_users VERSION '0.9';
RESET ROLE;
REASSIGN OWNED BY creator TO dba;
SQL
(undef, undef, $stderr) = run_psql($node, 'owned', 'ALTER EXTENSION datamart_users UPDATE', user => 'dba');
is(sqlstate($stderr), '42501', 'whoever owns the tables may not update by that');
alter('owned');
is( $node->safe_psql('owned',
		"SELECT count(*) FROM ($members) m LEFT JOIN pg_class c ON m.classid = 'pg_class'::regclass AND m.objid = c.oid LEFT JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid WHERE coalesce(relowner, proowner) <> 'dba'::regrole"),
	0, 'a superuser may, and what is new is the owner\'s, too');
is($node->safe_psql('owned', 'SELECT status FROM datamart_users_run_cycle()'), 'completed', 'a cycle runs in his name');
is($node->safe_psql('owned', 'SET ROLE dba; SELECT count(*) FROM datamart_users_service'), 0, 'and he reads the new view');

my $of_script = objects_of('taken');
foreach my $statement ('CREATE FUNCTION public.datamart_users_try(integer) RETURNS integer LANGUAGE sql AS \'SELECT 1\'',
	'CREATE TABLE public.datamart_users_drain (id integer)', 'CREATE TYPE public.datamart_users_service AS (id integer)')
{
	my ($kind, $name) = $statement =~ /^CREATE (\w+) (\S+)/;

	$node->safe_psql('taken', $statement);
	(undef, undef, $stderr) = run_psql($node, 'taken', 'ALTER EXTENSION datamart_users UPDATE');
	is(sqlstate($stderr), '42710', "$name is in the way");
	like($stderr, qr/ already exists.*DETAIL:  Names that begin with "datamart_users_" are for the extension\./s, 'and the script says what for');
	$node->safe_psql('taken', "DROP $kind $name");
}
same(objects_of('taken'), $of_script, 'nothing has changed');

#
# The library of 0.9 over the objects of 1.0, and one of 1.0 over still newer ones.
#
install_older();
is($node->safe_psql('old', 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id IN (1, 2); SELECT status, processed FROM datamart_users_run_cycle()'), 'completed|2', 'an older library works');
is( $node->safe_psql('old', "SELECT status, detail ~ 'library of this session is older', hint FROM datamart_users_check() WHERE item = 'server'"),
	'warning|t|-- The extension has version 1.0 in this database, and the library of this process is that of version 0.9.  Reconnect; where that does not help, install the library of version 1.0, and restart the server if it preloads it.',
	'and the doctor has seen it');
(undef, undef, $stderr) = run_psql($node, 'old', 'SELECT datamart_users_try()');
is(sqlstate($stderr), '42883', 'what it lacks is not found');
like($stderr, qr/could not find function "datamart_users_try" in file/, 'which the server tells');
install_newer();

$node->safe_psql('old', "UPDATE pg_extension SET extversion = '1.1' WHERE extname = 'datamart_users'; ALTER TABLE datamart_users_parked ADD until timestamptz NOT NULL");
(undef, undef, $stderr) = run_psql($node, 'old', "SELECT datamart_users_park(1, 'why not')");
is(sqlstate($stderr), '23502', 'what newer tables do not take');
like($stderr, qr/HINT:  The extension has version 1\.1 in this database, and the library of this process is that of version 1\.0\.  Reconnect/, 'is explained');
$node->safe_psql('old', 'ALTER TABLE datamart_users_parked DROP until; ALTER TABLE datamart_users_slowest ADD newer integer NOT NULL DEFAULT 1; ALTER TABLE datamart_users_slowest ALTER newer DROP DEFAULT');
(undef, undef, $stderr) = run_psql($node, 'old', [ 'UPDATE dwh.dimension_users SET modified = TRUE', 'SELECT datamart_users_run_cycle()' ]);
is(sqlstate($stderr), '23502', 'also at the end of a cycle');
like($stderr, qr/HINT:  The extension has version 1\.1 .* version 1\.0/, 'is explained');
$node->safe_psql('old', 'ALTER TABLE datamart_users_slowest DROP newer');
is($node->safe_psql('old', 'SELECT status, processed FROM datamart_users_run_cycle()'), 'completed|0', 'the next one runs');
is($node->safe_psql('old', 'SELECT status FROM datamart_users_cycles ORDER BY cycle_id DESC OFFSET 1 LIMIT 1'), 'aborted', 'and marks that one');
$node->safe_psql('old', 'ALTER FOREIGN TABLE datamart_users_service_source ADD newer integer');
my %hints = ('0.9' => 'Run ALTER EXTENSION datamart_users UPDATE\.', '1.0' => 'If it is of the extension, somebody has changed it',
	'1.1' => 'The extension has version 1\.1 in this database');
foreach my $version (sort keys %hints)
{
	$node->safe_psql('old', "UPDATE pg_extension SET extversion = '$version' WHERE extname = 'datamart_users'");
	(undef, undef, $stderr) = run_psql($node, 'old', 'SELECT count(*) FROM datamart_users_service');
	is(sqlstate($stderr), '55000', "a view over other columns, and objects of $version");
	like($stderr, qr/HINT:  $hints{$version}/, 'tell what to do');
}
check_sane($node, 'old', 'newer');

$node->stop;
done_testing();
