package pgmq_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// dropFunctions removes all forms of functions of PGMQ.
func dropFunctions(t testing.TB, d *pgmqtest.Database, names ...string) {
	t.Helper()
	run(t, d, `
		do $$
		declare
			form regprocedure;
		begin
			for form in
				select p.oid::regprocedure
				from pg_catalog.pg_proc as p
				where p.pronamespace = 'pgmq'::regnamespace and p.proname in ('`+strings.Join(names, "', '")+`')
			loop
				execute format('drop function %s', form);
			end loop;
		end;
		$$`)
}

// What a PGMQ does not have is named, together with the version that has it.
func TestMissingFunctions(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	c := pgmq.New(d.Pool)
	fillQueue(t, c, "q")
	missing := map[string]struct{ function, since string }{ // by the call of onQueueCalls or everyCall
		"Read, Fill":            {"read_grouped", "PGMQ 1.9"},
		"Read, RoundRobin":      {"read_grouped_rr", "PGMQ 1.9"},
		"Read, Head":            {"read_grouped_head", "PGMQ 1.11.1"},
		"Read, ServerPoll Fill": {"read_grouped_with_poll", "PGMQ 1.9"},
		"Read, ServerPoll RR":   {"read_grouped_rr_with_poll", "PGMQ 1.9"},
		"Read, ServerPoll Head": {"read_grouped_head_with_poll", "PGMQ 1.12"},
		"IndexGroups":           {"create_fifo_index", "PGMQ 1.9"},
		"EnableNotify":          {"enable_notify_insert", "PGMQ 1.8"},
		"DisableNotify":         {"disable_notify_insert", "PGMQ 1.7"},
		"UpdateNotify":          {"update_notify_insert", "PGMQ 1.11"},
		"BindTopic":             {"bind_topic", "PGMQ 1.11"},
		"UnbindTopic":           {"unbind_topic", "PGMQ 1.11"},
		"EstimateMetrics":       {"_metrics_estimate", "the schema of this project, which Client.Install installs"},
		"NotifyThrottles":       {"list_notify_insert_throttles", "PGMQ 1.11"},
		"Routes":                {"test_routing", "PGMQ 1.11"},
		"Bindings":              {"list_topic_bindings", "PGMQ 1.11"},
		"SendBatchTopic":        {"send_batch_topic", "PGMQ 1.11"},
		"SetVisibility":         {"set_vt", ""},
	}
	for _, m := range missing {
		dropFunctions(t, d, m.function)
	}
	for name, m := range missing {
		call, ok := onQueueCalls[name]
		if !ok {
			call = everyCall[name]
		}
		err := call(t.Context(), c, "q")
		var unsupported *pgmq.UnsupportedError
		if !errors.As(err, &unsupported) || !errors.Is(err, pgmq.ErrUnsupported) {
			t.Errorf("%s: got %v, want an UnsupportedError", name, err)
			continue
		}
		if unsupported.Function != "pgmq."+m.function || unsupported.Since != m.since {
			t.Errorf("%s: it is %s since %q that is missing, want %s since %q", name, unsupported.Function, unsupported.Since, m.function, m.since)
		}
		if text := err.Error(); !strings.Contains(text, "pgmq."+m.function) || !strings.Contains(text, m.since) {
			t.Errorf("%s: the error does not say what is missing: %s", name, text)
		}
	}
}

// asPGMQ15 turns a database into one with the functions and types of PGMQ 1.5, for what this test uses.
func asPGMQ15(t testing.TB, d *pgmqtest.Database) {
	t.Helper()
	dropFunctions(t, d, "set_vt", "pop", "read", "drop_queue", "metrics", "enable_notify_insert", "create_partitioned")
	run(t, d, `alter type pgmq.message_record drop attribute last_read_at`)
	run(t, d, `alter type pgmq.metrics_result drop attribute default_partition_length, drop attribute queue_visible_length`)
	run(t, d, `
		create function pgmq.set_vt(queue_name text, msg_id bigint, vt integer) returns setof pgmq.message_record
		language plpgsql as $$
		begin
			return query execute format('
				update pgmq.%I as q set vt = clock_timestamp() + make_interval(secs => $2)
				where q.msg_id = $1
				returning q.msg_id, q.read_ct, q.enqueued_at, q.vt, q.message, q.headers', 'q_' || queue_name)
			using msg_id, vt;
		end;
		$$`)
	run(t, d, `
		create function pgmq.pop(queue_name text) returns setof pgmq.message_record
		language plpgsql as $$
		begin
			return query execute format('
				delete from pgmq.%1$I as q
				where q.msg_id = (select min(m.msg_id) from pgmq.%1$I as m where m.vt <= clock_timestamp())
				returning q.msg_id, q.read_ct, q.enqueued_at, q.vt, q.message, q.headers', 'q_' || queue_name);
		end;
		$$`)
	run(t, d, `
		create function pgmq.read(queue_name text, vt integer, qty integer, conditional jsonb default '{}')
		returns setof pgmq.message_record
		language plpgsql as $$
		begin
			return query execute format('
				update pgmq.%1$I as q set vt = clock_timestamp() + make_interval(secs => $1), read_ct = q.read_ct + 1
				where q.msg_id in (select m.msg_id from pgmq.%1$I as m where m.vt <= clock_timestamp() limit $2)
				returning q.msg_id, q.read_ct, q.enqueued_at, q.vt, q.message, q.headers', 'q_' || queue_name)
			using vt, qty;
		end;
		$$`)
	run(t, d, `
		create function pgmq.drop_queue(queue_name text) returns boolean
		language plpgsql as $$
		begin
			execute format('drop table pgmq.%I', 'q_' || queue_name);
			delete from pgmq.meta as m where m.queue_name = $1;
			return true;
		end;
		$$`)
	run(t, d, `
		create function pgmq.metrics(queue_name text) returns pgmq.metrics_result
		language sql return row(queue_name, 7, null, null, 8, now())::pgmq.metrics_result`)
	run(t, d, `
		create function pgmq.enable_notify_insert(queue_name text) returns void
		language sql as $$ insert into pgmq.notify_insert_throttle (queue_name) values (queue_name) $$`)
	run(t, d, `
		create function pgmq.create_partitioned(queue_name text, partition_interval text, retention_interval text) returns void
		language sql as $$ select pgmq.create(queue_name) $$`)
}

func TestOldPGMQ(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	c := pgmq.New(d.Pool)
	newQueue(t, c, "q", `{"n": 1}`, `2`, `3`)
	asPGMQ15(t, d)

	msgs, err := c.Read(t.Context(), "q", 0, pgmq.Limit(2))
	if err != nil || len(msgs) != 2 {
		t.Fatalf("read: %v, %v", msgs, err)
	}
	if m := msgs[0]; m.ID != 1 || m.ReadCount != 1 || !m.LastReadAt.IsZero() || string(m.Body) != `{"n": 1}` || m.Headers != nil || m.VisibleAt.IsZero() {
		t.Errorf("read %+v", m)
	}

	setVisibility := func(c *pgmq.Client) {
		t.Helper()
		const hide = 90*time.Minute + time.Millisecond
		until := time.Now().Add(hide)
		for _, v := range []pgmq.Visibility{pgmq.VisibleIn(hide), pgmq.VisibleAt(until)} {
			msgs, err := c.SetVisibility(t.Context(), "q", v, 2, 1, 2, 99)
			if err != nil || len(msgs) != 2 || msgs[0].ID != 1 || msgs[1].ID != 2 {
				t.Fatalf("set visibility: %v, %v", msgs, err)
			}
			for _, m := range msgs {
				if m.VisibleAt.Before(until.Add(-time.Microsecond)) || time.Until(m.VisibleAt) > hide+time.Second {
					t.Errorf("message %d is visible at %v, want %v, or up to a second later", m.ID, m.VisibleAt, until)
				}
			}
		}
		msgs, err := c.SetVisibility(t.Context(), "q", pgmq.VisibleIn(0), 1)
		if err != nil || len(msgs) != 1 || time.Until(msgs[0].VisibleAt) > time.Second {
			t.Errorf("set visible at once: %v, %v", msgs, err)
		}
	}
	setVisibility(c)
	if err := c.InTx(t.Context(), func(tx *pgmq.Client) error { setVisibility(tx); return nil }); err != nil {
		t.Error(err)
	}

	if msgs, err := c.Pop(t.Context(), "q", 1); err != nil || len(msgs) != 1 || msgs[0].ID != 1 {
		t.Errorf("pop: %v, %v", msgs, err)
	}
	requireUnsupported(t, "PGMQ 1.7", func() error { _, err := c.Pop(t.Context(), "q", 2); return err }())

	m, err := c.Metrics(t.Context(), "q")
	if err != nil || m.Length != 7 || m.Total != 8 || m.Visible != nil || m.DefaultPartition != nil || m.Oldest != nil {
		t.Errorf("metrics %+v, %v", m, err)
	}

	requireUnsupported(t, "PGMQ 1.8", c.EnableNotify(t.Context(), "q", time.Second))
	if err := c.EnableNotify(t.Context(), "q", 0); err != nil {
		t.Error(err)
	}

	requireUnsupported(t, "PGMQ 1.13", c.CreateQueue(t.Context(), "p", pgmq.Partitioned(pgmq.Messages(1), pgmq.Messages(2), 3)))
	if err := c.CreateQueue(t.Context(), "p", pgmq.Partitioned(pgmq.Messages(1), pgmq.Messages(2), 0)); err != nil {
		t.Error(err)
	}

	for i, want := range []bool{true, false} {
		if dropped, err := c.DropQueue(t.Context(), "p"); dropped != want || err != nil {
			t.Errorf("drop %d: %v, %v", i, dropped, err)
		}
	}
}

func requireUnsupported(t testing.TB, since string, err error) {
	t.Helper()
	var unsupported *pgmq.UnsupportedError
	if !errors.As(err, &unsupported) || unsupported.Since != since {
		t.Errorf("got %v, want that it needs %s", err, since)
	}
}

// A queue of PGMQ 1.9 after the upgrade to 1.10: its table has last_read_at in the last place, and the
// functions return the columns of the table as they are.
func TestBrokenPGMQ(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	c := pgmq.New(d.Pool)
	newQueue(t, c, "q", `{"n": 1}`)
	dropFunctions(t, d, "read", "pop", "set_vt")
	run(t, d, `alter table pgmq.q_q drop column last_read_at`)
	run(t, d, `alter table pgmq.q_q add column last_read_at timestamptz`)
	for _, function := range []string{
		`pgmq.read(queue_name text, vt integer, qty integer)`,
		`pgmq.pop(queue_name text)`,
		`pgmq.set_vt(queue_name text, msg_ids bigint[], vt timestamptz)`,
	} {
		run(t, d, `
			create function `+function+` returns setof pgmq.message_record
			language plpgsql as $$
			begin
				return query execute format('update pgmq.%I as q set read_ct = read_ct + 1 returning q.*', 'q_' || queue_name);
			end;
			$$`)
	}

	for _, name := range []string{"Read", "Pop", "SetVisibility"} {
		err := onQueueCalls[name](t.Context(), c, "q")
		if !errors.Is(err, pgmq.ErrBrokenPGMQ) || !strings.Contains(err.Error(), "upgrade PGMQ to 1.11") {
			t.Errorf("%s: got %v, want ErrBrokenPGMQ", name, err)
		}
		err = pgx.BeginFunc(t.Context(), d.Pool, func(tx pgx.Tx) error { return onQueueCalls[name](t.Context(), pgmq.New(tx), "q") })
		if !errors.Is(err, pgmq.ErrBrokenPGMQ) {
			t.Errorf("%s in a transaction: got %v, want ErrBrokenPGMQ", name, err)
		}
	}
	if err := onQueueCalls["Send"](t.Context(), c, "q"); err != nil {
		t.Error(err)
	}
	if counts := values[int32](t, d, `select read_ct from pgmq.q_q where msg_id = 1`); counts[0] != 0 {
		t.Errorf("a failed read changed the message: read %d times", counts[0])
	}
}
