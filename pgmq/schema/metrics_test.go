package schema_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// lengths is what the metrics say about a queue, but for its age.
const lengths = `
	select concat_ws(
		' ', m.queue_name, m.queue_length, m.total_messages, m.queue_visible_length, m.default_partition_length
	)
	from pgmq.`

func TestMetrics(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	createPartitioned(t, d.Pool, "p")
	exec(t, d.Pool, `select pgmq.create('Q')`)
	for _, queue := range []string{"Q", "p"} {
		exec(t, d.Pool, `select pgmq.send_batch($1::text, (select array_agg(to_jsonb(n)) from generate_series(1, 15) as n))`, queue)
		exec(t, d.Pool, `select pgmq.read($1::text, 60, 4), pgmq.delete($1::text, 1)`, queue)
	}
	for queue, want := range map[string]string{"Q": "Q 14 15 11", "p": "p 14 15 11 5"} {
		if got := one[string](t, d.Pool, lengths+`metrics($1::text) as m`, queue); got != want {
			t.Errorf("metrics: %s, want %s", got, want)
		}
		want = strings.TrimSuffix(want, " 5") // an estimate says nothing about the default partition
		if got := one[string](t, d.Pool, lengths+`_metrics_estimate($1::text) as m`, queue); got != want {
			t.Errorf("estimate: %s, want %s", got, want)
		}
	}
	exec(t, d.Pool, `update pgmq.q_q set enqueued_at = now() - interval '5000 s' * (16 - msg_id)`)
	for _, function := range []string{"metrics", "_metrics_estimate"} {
		age := one[string](t, d.Pool, `
			select concat_ws(' ', m.newest_msg_age_sec / 1000, m.oldest_msg_age_sec / 1000) from pgmq.`+function+`('Q') as m`)
		if age != "5 70" {
			t.Errorf("%s: age in 1000 s of the newest and the oldest message: %s, want 5 70", function, age)
		}
	}
	if state := stateOf(try(t.Context(), d.Pool, `select pgmq._metrics_estimate('nope')`)); state != "42P01" {
		t.Errorf("estimate of a missing queue: SQLSTATE %q", state)
	}
}

func TestMetricsEstimateLooksAtFewMessages(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	exec(t, d.Pool, `select pgmq.create('q')`)
	exec(t, d.Pool, `select pgmq.send_batch('q', (select array_agg('1'::jsonb) from generate_series(1, 50000)))`)
	exec(t, d.Pool, `vacuum analyze pgmq.q_q`) // tells the server how many rows there are
	conn := session(t, d)
	awaitStatistics(t, conn, 50000)
	looked := rowsLookedAt(t, conn, "q_q", func(tx pgx.Tx) {
		if got := one[string](t, tx, lengths+`_metrics_estimate('q') as m`); got != "q 50000 50000 50000" {
			t.Errorf("estimate: %s", got)
		}
	})
	if looked > 21000 {
		t.Errorf("looked at %d of 50000 messages", looked)
	}
}

// awaitStatistics waits until the server has counted the rows of pgmq.q_q: before Postgres 15 that is not
// done by the statement itself.
func awaitStatistics(t testing.TB, conn *pgx.Conn, rows int64) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for one[int64](t, conn, `select pg_stat_get_live_tuples('pgmq.q_q'::regclass)`) != rows {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// Who watches the database sees what waits, and not what is in it.
func TestMonitorsSeeNoPayload(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	role := newRole(t, d)
	exec(t, d.Pool, `grant pg_monitor to `+role)
	exec(t, d.Pool, `select pgmq.create('q'), pgmq.bind_topic('a', 'q'), pgmq.enable_notify_insert('q')`)
	createPartitioned(t, d.Pool, "p")
	exec(t, d.Pool, `select pgmq.send('q', '1'::jsonb)`)

	conn := session(t, d)
	exec(t, conn, `set role `+role)
	for _, allowed := range []string{
		`select pgmq.metrics_all()`,
		`select pgmq._metrics_estimate('q')`,
		`select pgmq.list_queues()`,
		`select pgmq.list_topic_bindings()`,
		`select pgmq.test_routing('a')`,
		`select pgmq.list_notify_insert_throttles()`,
		`select msg_id, read_ct, vt from pgmq.q_q`,
	} {
		exec(t, conn, allowed)
	}
	for _, denied := range []string{
		`select message from pgmq.q_q`,
		`select headers from pgmq.q_q`,
		`select message from pgmq.a_q`,
		`select pgmq.read('q', 0, 1)`,
		`select pgmq.pop('q')`,
		`select pgmq.send('q', '1'::jsonb)`,
		`select pgmq.send_topic('a', '1'::jsonb)`,
		`select pgmq.delete('q', 1)`,
		`select pgmq.archive('q', 1)`,
		`select pgmq.purge_queue('q')`,
		`select pgmq.drop_queue('q')`,
		`select pgmq.create('r')`,
		`select pgmq.bind_topic('b', 'q')`,
		`insert into pgmq._ledger (version, checksum) values (2, '')`,
	} {
		if state := stateOf(try(t.Context(), conn, denied)); state != "42501" {
			t.Errorf("%s: SQLSTATE %q, want 42501", denied, state)
		}
	}
}
