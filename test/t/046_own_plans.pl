# Above datamart_users.custom_plan_actions a datamart user is planned for alone,
# and nobody else is: neither who comes after it, nor the statements around the
# procedure, nor where somebody has chosen another plan_cache_mode.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('weights', conf => <<'CONF');
session_preload_libraries = 'auto_explain'
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
datamart_users.custom_plan_actions = 10
datamart_users.max_workers = 1
datamart_users.retry_delay = 0
CONF

sub sql { return $node->safe_psql('w', $_[0]) }

# 1 and 4 are light, 2 is heavy, 3 has as many actions as are not too many.
# The trigger and the deferred one see the mode after the procedure.
add_warehouse($node, 'w', 4);
sql(<<'SQL');
INSERT INTO dwh.facts SELECT 2, now() FROM generate_series(1, 29);
INSERT INTO dwh.facts SELECT 3, now() - interval '1 day' FROM generate_series(1, 9);
CREATE TABLE dwh.modes (n serial, id integer, place text, mode text DEFAULT current_setting('plan_cache_mode'));
CREATE FUNCTION dwh.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO dwh.modes (id, place) VALUES (new.dimension_user_id, tg_argv[0]);
	RETURN NULL;
END $$;
CREATE TRIGGER flag AFTER UPDATE ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.note('flag');
CREATE CONSTRAINT TRIGGER commits AFTER INSERT OR UPDATE ON dwh.datamartusers DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION dwh.note('commit');
CREATE FUNCTION dwh.count_facts(p_id integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	SELECT count(*) INTO n FROM dwh.facts WHERE action_dimension_id_user = p_id AND 'nested' <> '';
	RETURN n;
END $$;
SQL

# The procedure with this in its midst, and these clauses.
sub define
{
	my ($midst, $clauses) = @_;
	$clauses //= '';

	sql(<<"SQL");
CREATE OR REPLACE PROCEDURE dwh.update_datamart_user(p_id integer) LANGUAGE plpgsql $clauses AS \$\$
BEGIN
	$midst
	INSERT INTO dwh.modes (id, place) VALUES (p_id, 'call');
	INSERT INTO dwh.datamartusers AS d (dimension_user_id, actions)
	VALUES (p_id, dwh.count_facts(p_id))
	ON CONFLICT (dimension_user_id) DO UPDATE SET actions = excluded.actions;
END;
\$\$;
TRUNCATE dwh.modes;
SQL
	return;
}

my ($shown, $offset);

# Refreshes those, and returns the modes that they saw; settings are of the
# session.
sub modes
{
	my ($ids, @settings) = @_;

	sql("TRUNCATE dwh.modes; UPDATE dwh.dimension_users SET modified = FALSE; UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id IN ($ids); TRUNCATE dwh.modes");
	$offset = -s $node->logfile;
	$shown = sql(join('', map { "SET $_;" } @settings) . 'SELECT processed, failed FROM datamart_users_run_cycle()');
	return sql(q(SELECT id || ':' || string_agg(place || ' ' || mode, ', ' ORDER BY n) FROM dwh.modes GROUP BY id ORDER BY min(n)));
}

my $generic = 'force_generic_plan';
my $custom = 'force_custom_plan';

sub as_light { return "$_[0]:call $generic, flag $generic, commit $generic" }

sub planned_alone
{
	return sql('SELECT planned_alone FROM datamart_users_cycle_profiles ORDER BY cycle_id DESC LIMIT 1');
}

my $heavy = "2:call $custom, flag $generic, commit $generic";

# How the statement of the nested function was planned, for one after the
# other: for a parameter, or for a value.
sub plans
{
	my @plans = substr(slurp_file($node->logfile), $offset) =~ /'nested' <> ''\n(?:.*\n)*?.*(?:Cond|Filter): \(action_dimension_id_user = ([^)]+)\)/g;
	return join ' ', @plans;
}

define('');
is(modes('1, 2, 3, 4'), join("\n", $heavy, as_light(3), as_light(1), as_light(4)),
	'who has more actions is planned for alone, and nobody else');
is($shown, '4|0', 'all of them are processed');
is(plans(), '2 $1 $1 $1', 'so are the plans in a nested function, the kept ones for the others');
is(planned_alone(), '1', 'the history tells how many');
like(sql('SELECT datamart_users_report()'), qr/^  1 datamart user was planned for alone$/m, 'and the report');

# Kept plans are there already when the heavy one comes, and after it.
sql("UPDATE dwh.facts SET action_at = now() - interval '400 days' WHERE action_dimension_id_user = 2");
is(modes('1, 2, 4'), join("\n", as_light(1), as_light(4), $heavy), 'a heavy one after light ones');
sql("UPDATE dwh.facts SET action_at = now() - interval '20 days' WHERE action_dimension_id_user = 2");
sql("UPDATE dwh.facts SET action_at = now() - interval '400 days' WHERE action_dimension_id_user = 4");
is(modes('1, 2, 4'), join("\n", as_light(1), $heavy, as_light(4)), 'and between them');
is(plans(), '$1 2 $1', 'whose plan was kept');

# Never.
is(modes('2', 'datamart_users.custom_plan_actions = 0'), as_light(2), '0 means never');
is(planned_alone(), '0', 'the history tells that');
unlike(sql('SELECT datamart_users_report()'), qr/planned for/, 'and the report says nothing');
is(modes('2', 'datamart_users.custom_plan_actions = 30'), as_light(2), 'as many actions as the limit are not above it');
is(modes('2', 'datamart_users.custom_plan_actions = 29'), $heavy, 'one more is');
my ($code, $out, $err) = $node->psql('w', q(LOAD 'datamart_users'; SET datamart_users.custom_plan_actions = -1));
like($err, qr/-1 is outside the valid range/, 'a negative number is refused');

# Where workers have another mode, be it the one that the caller has chosen.
is(modes('2', "datamart_users.worker_settings = 'jit = off'"), '2:call auto, flag auto, commit auto', 'worker_settings without a mode');
is(modes('2', "datamart_users.worker_settings = 'jit = off'", 'plan_cache_mode = force_generic_plan'), as_light(2),
	'that of the caller is his');
is(modes('2', "datamart_users.worker_settings = 'plan_cache_mode = force_generic_plan, plan_cache_mode = auto'"),
	'2:call auto, flag auto, commit auto', 'the last one holds');
is(modes('2', "datamart_users.worker_settings = 'plan_cache_mode = auto, PLAN_CACHE_MODE = Force_Generic_Plan'"), $heavy,
	'however it is written');

# The procedure's own word.
define('', 'SET plan_cache_mode = auto');
is(modes('1, 2'), join("\n", "1:call auto, flag $generic, commit $generic", "2:call auto, flag $generic, commit $generic"),
	'a SET clause of the procedure');
define('SET plan_cache_mode = auto;');
is(modes('2, 1'), join("\n", '1:call auto, flag auto, commit auto', '2:call auto, flag auto, commit auto'),
	'a SET in it, which is for what comes after it, in the same refresh');
define(q(IF p_id = 2 THEN SET work_mem = '7MB'; SET LOCAL plan_cache_mode = auto; END IF; IF p_id = 4 AND current_setting('work_mem') = '7MB' THEN RAISE 'left'; END IF;));
is(modes('2, 4'), join("\n", "2:call auto, flag $generic, commit $generic", as_light(4)), 'what it leaves, besides');
is($shown, '2|0', 'nothing that it has set is left for the next one');
define(q(RESET ALL;));
is(modes('2, 4'), join("\n", '2:call auto, flag auto, commit auto', '4:call auto, flag auto, commit auto'), 'a reset of all');

# Errors: those that it catches, and those that end the attempt, once or for good.
define(q(BEGIN SET LOCAL plan_cache_mode = auto; RAISE 'caught'; EXCEPTION WHEN raise_exception THEN END;));
is(modes('2, 4'), join("\n", $heavy, as_light(4)), 'an error that it catches');
define(q(IF p_id = 2 THEN RAISE 'bad'; END IF;));
is(modes('2, 4'), as_light(4), 'after one that it does not');
is($shown, '1|1', 'which fails it');
is(planned_alone(), '0', 'nobody was planned for alone');
sql('CREATE SEQUENCE dwh.attempts');
define(q(IF nextval('dwh.attempts') = 1 THEN RAISE serialization_failure; END IF;));
is(modes('2, 4'), join("\n", $heavy, as_light(4)), 'another attempt is one for it alone');
is(planned_alone(), '1', 'and counts once');
define(q(IF p_id = 2 THEN PERFORM pg_cancel_backend(pg_backend_pid()); PERFORM pg_sleep(60); END IF;));
sql('UPDATE dwh.dimension_users SET modified = TRUE');
is(sql("SET datamart_users.user_timeout = '30s'; SELECT count(*) FROM datamart_users_try(2) WHERE outcome = 'failed'"), '1', 'a cancel in a rehearsal');

# A rehearsal does as a cycle does, and says so.
define(q(RAISE LOG 'mode of %: %', p_id, current_setting('plan_cache_mode');));
sql('UPDATE dwh.dimension_users SET modified = TRUE');
$offset = -s $node->logfile;
my $detail = 'Its statements were planned for it alone, as it has more than %d actions.';
is(sql('SELECT outcome, message, detail FROM datamart_users_try(2)'), 'processed||' . sprintf($detail, 10), 'a rehearsal of a heavy one');
is(sql('SELECT outcome, message, detail FROM datamart_users_try(4)'), 'processed||', 'of a light one');
is(sql('SET datamart_users.custom_plan_actions = 0; SELECT outcome, detail FROM datamart_users_try(2)'), 'processed|', 'of a heavy one that does not matter');
is(sql("UPDATE dwh.facts SET action_at = now() WHERE action_dimension_id_user = 2; SET datamart_users.custom_plan_actions = 29; SELECT dimension_user_id, detail FROM datamart_users_try()"),
	'2|' . sprintf($detail, 29), 'of the first one of the queue');
is(join(' ', substr(slurp_file($node->logfile), $offset) =~ /mode of (\d: \w+)/g),
	"2: $custom 4: $generic 2: $generic 2: $custom", 'these are the modes that it saw');

# The doctor says where the setting is in vain.
my $idle = q(SELECT status, detail ~ 'custom_plan_actions has no effect' FROM datamart_users_check() WHERE item = 'worker settings');
is(sql($idle), 'ok|f', 'nothing to say of the default');
is(sql("SET datamart_users.worker_settings = 'jit = off, max_parallel_workers_per_gather = 0'; $idle"), 'warning|t', 'without kept plans');
is(sql("SET plan_cache_mode = force_generic_plan; SET datamart_users.worker_settings = 'jit = off, max_parallel_workers_per_gather = 0'; $idle"), 'warning|t', 'with those of the caller');
is(sql("SET plan_cache_mode = force_generic_plan; SET datamart_users.worker_settings = 'jit = off, max_parallel_workers_per_gather = 0'; SET datamart_users.custom_plan_actions = 0; $idle"), 'ok|f', 'but not where it is off');

define('');
sql('SELECT datamart_users_retry(); SELECT datamart_users_run_cycle()');
check_sane($node, 'w', 'at the end');
$node->stop;
done_testing();
