package schema_test

import (
	"strings"
	"testing"

	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// everyFunction calls the whole public surface, as a role would that others want to lead astray.
var everyFunction = []string{
	`select pgmq.validate_queue_name('q'), pgmq.format_table_name('q', 'q'), pgmq.acquire_queue_lock('q')`,
	`select pgmq.create('q'), pgmq.create_non_partitioned('r'), pgmq.create_unlogged('u')`,
	`select pgmq.enable_notify_insert('q', 1), pgmq.update_notify_insert('q', 2), pgmq.list_notify_insert_throttles()`,
	`select pgmq.create_fifo_index('q'), pgmq.create_fifo_indexes_all()`,
	`select pgmq.bind_topic('a.*', 'q'), pgmq.bind_topic('a.b', 'q'), pgmq.bind_topic('#.b', 'r')`,
	`select pgmq.validate_routing_key('a.b'), pgmq.validate_topic_pattern('a.*'), pgmq.test_routing('a.b')`,
	`select pgmq.list_queues(), pgmq.list_topic_bindings(), pgmq.list_topic_bindings('q')`,

	`select pgmq.send('q', '1'), pgmq.send('q', '1', '{}'::pg_catalog.jsonb)`,
	`select pgmq.send('q', '1', 1), pgmq.send('q', '1', 'now'::timestamp with time zone)`,
	`select pgmq.send('q', '1', '{}', 1), pgmq.send('q', '1', '{}', 'now'::timestamp with time zone)`,
	`select pgmq.send_batch('q', '{1}'), pgmq.send_batch('q', '{1}', '{null}'::pg_catalog.jsonb[])`,
	`select pgmq.send_batch('q', '{1}', 1), pgmq.send_batch('q', '{1}', 'now'::timestamp with time zone)`,
	`select pgmq.send_batch('q', '{1}', '{null}', 1), pgmq.send_batch('q', '{1}', '{null}', 'now'::timestamp with time zone)`,
	`select pgmq.send_topic('a.b', '1'), pgmq.send_topic('a.b', '1', 1), pgmq.send_topic('a.b', '1', '{}', 1)`,
	`select pgmq.send_batch_topic('a.b', '{1}'), pgmq.send_batch_topic('a.b', '{1}', '{null}'::pg_catalog.jsonb[])`,
	`select pgmq.send_batch_topic('a.b', '{1}', 1), pgmq.send_batch_topic('a.b', '{1}', 'now'::timestamp with time zone)`,
	`select pgmq.send_batch_topic('a.b', '{1}', '{null}', 1)`,
	`select pgmq.send_batch_topic('a.b', '{1}', '{null}', 'now'::timestamp with time zone)`,

	`select pgmq.metrics('q'), pgmq.metrics_all(), pgmq._metrics_estimate('q')`,
	`select pgmq.read('q', 0, 1), pgmq.read('q', 0, 1, '{"a": 1}'), pgmq.read_with_poll('q', 0, 1)`,
	`select pgmq.read_grouped('q', 0, 1), pgmq.read_grouped_rr('q', 0, 1), pgmq.read_grouped_head('q', 0, 1)`,
	`select pgmq.read_grouped('r', 0, 1), pgmq.read_grouped_rr('r', 0, 1), pgmq.read_grouped_head('r', 0, 1)`,
	`select pgmq.read_grouped_with_poll('q', 0, 1), pgmq.read_grouped_rr_with_poll('q', 0, 1)`,
	`select pgmq.read_grouped_head_with_poll('q', 0, 1), pgmq.read_with_poll('u', 0, 1, 1, 600)`,
	`select pgmq.set_vt('q', 1, 0), pgmq.set_vt('q', 1, 'now'::timestamp with time zone)`,
	`select pgmq.set_vt('q', '{1}'::pg_catalog.int8[], 0), pgmq.set_vt('q', '{1}'::pg_catalog.int8[], 'now'::timestamp with time zone)`,
	`select pgmq.archive('q', 1), pgmq.archive('q', '{2}'::pg_catalog.int8[]), pgmq.delete('q', 3), pgmq.delete('q', '{4}'::pg_catalog.int8[]), pgmq.pop('q')`,

	`select pgmq.unbind_topic('a.b', 'q'), pgmq.disable_notify_insert('q'), pgmq.detach_archive('q')`,
	`select pgmq.purge_queue('q'), pgmq.drop_queue('q'), pgmq.drop_queue('r', false)`,
}

// usedFunctions are functions of Postgres that the schema uses.
var usedFunctions = []string{
	"cardinality", "clock_timestamp", "current_setting", "extract", "generate_series", "hashtextextended", "left", "length",
	"lower", "make_interval", "now", "octet_length", "pg_advisory_xact_lock", "pg_get_serial_sequence", "pg_notify", "pg_sleep",
	"pg_stat_get_live_tuples", "quote_ident", "quote_literal", "quote_nullable", "replace", "right", "split_part", "strpos",
	"substring", "to_regclass", "unnest",
}

// operandTypes are the types that have operators the schema uses.
var operandTypes = []string{
	"text", "name", "integer", "bigint", "oid", "timestamptz", "interval", "jsonb", "boolean", "double precision", "numeric",
	"anyarray", "anynonarray", "anycompatible", "anycompatiblearray",
}

// Somebody may create objects in a schema that is in front of pg_catalog in our caller's search_path: a
// twin of every function and operator on common types, tables and types with the names of Postgres's own.
// None of them is ever used.
func TestHijack(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	exec(t, d.Pool, `create schema evil`)
	twins := column[string](t, d.Pool, `
		select format(
			'create function evil.%I(%s) returns %s language plpgsql as $$begin raise exception ''hijacked: %s''; end$$',
			p.proname,
			pg_get_function_identity_arguments(p.oid),
			format_type(p.prorettype, null),
			p.proname
		)
		from pg_proc as p
		where p.pronamespace = 'pg_catalog'::regnamespace
			and p.prokind = 'f'
			and not p.proretset
			and not p.proargtypes::oid[] && array['internal'::regtype, 'cstring'::regtype, '"any"'::regtype]::oid[]
			and p.proname = any ($1::text[])
		union all
		select format(
			'create function evil.%I(%s, %s) returns %s language plpgsql as $$begin raise exception ''hijacked: %s''; end$$;'
				|| 'create operator evil.%s (function = evil.%I, leftarg = %s, rightarg = %s)',
			'op' || o.oid, o.oprleft::regtype, o.oprright::regtype, o.oprresult::regtype, o.oprname,
			o.oprname, 'op' || o.oid, o.oprleft::regtype, o.oprright::regtype
		)
		from pg_operator as o
		where o.oprnamespace = 'pg_catalog'::regnamespace
			and o.oprleft = any ($2::text[]::regtype[])
			and o.oprname ~ '^([=<>+*/~-]|<=|>=|<>|\|\||->>|#>>|@>|&&)$'
			and o.oprresult <> 0`, usedFunctions, operandTypes)
	// Twins that nothing but the wrong type tells from what is meant, which is therefore called first.
	twins = append(
		twins,
		`create function evil.format(text, text) returns text language plpgsql as $$begin raise exception 'hijacked: format'; end$$`,
		`create function evil.lower(character varying) returns text language plpgsql as $$begin raise exception 'hijacked: lower'; end$$`,
		`create function evil.twin(character varying, text) returns boolean language plpgsql as $$begin raise exception 'hijacked: varchar ='; end$$`,
		`create operator evil.= (function = evil.twin, leftarg = character varying, rightarg = text)`,
		`create domain evil.jsonb as text check (value = 'hijacked')`,
		`create domain evil.text as integer`,
		`create type evil.record as (hijacked boolean)`,
		`create table evil.pg_class (hijacked boolean)`,
		`create table evil.meta (hijacked boolean)`,
	)
	if len(twins) < 150 {
		t.Fatalf("only %d twins", len(twins))
	}
	conn := session(t, d)
	if _, err := conn.PgConn().Exec(t.Context(), strings.Join(twins, ";\n")).ReadAll(); err != nil {
		t.Fatal(err)
	}

	// The simple protocol: the client, too, would look up names.
	exec(t, conn, `set search_path = evil, pg_catalog, public`)
	for _, call := range everyFunction {
		if _, err := conn.PgConn().Exec(t.Context(), call).ReadAll(); err != nil {
			t.Errorf("%s: %v", call, err)
		}
	}
}
