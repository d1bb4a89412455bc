package schema_test

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

const never = "3600000" // milliseconds

// heard collects what a listening session was told, up to a word that is said now.
func heard(t testing.TB, d *pgmqtest.Database, listener *pgx.Conn) []string {
	t.Helper()
	exec(t, listener, `listen enough`)
	exec(t, d.Pool, `notify enough`)
	var channels []string
	for {
		notification, err := listener.WaitForNotification(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if notification.Channel == "enough" {
			return channels
		}
		channels = append(channels, notification.Channel)
	}
}

func TestNotificationsAreThrottled(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		prepare string
		want    int
	}{
		"once":             {`select pgmq.enable_notify_insert('q', ` + never + `)`, 1},
		"throttle 0":       {`select pgmq.enable_notify_insert('q', 0)`, 3},
		"enabled twice":    {`select pgmq.enable_notify_insert('q', 0), pgmq.enable_notify_insert('q', ` + never + `)`, 1},
		"updated":          {`select pgmq.enable_notify_insert('q', ` + never + `), pgmq.update_notify_insert('q', 0)`, 3},
		"lost in a crash":  {`with gone as (select pgmq.enable_notify_insert('q')) select from gone; truncate pgmq.notify_insert_throttle`, 3},
		"disabled":         {`select pgmq.enable_notify_insert('q', 0), pgmq.disable_notify_insert('q')`, 0},
		"enabled again":    {`select pgmq.enable_notify_insert('q', 0), pgmq.disable_notify_insert('q'), pgmq.enable_notify_insert('q', 0)`, 3},
		"of another queue": {`select pgmq.create('r'), pgmq.enable_notify_insert('r', 0)`, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := pgmqtest.New(t)
			exec(t, d.Pool, `select pgmq.create('q')`)
			listener := session(t, d)
			exec(t, listener, `listen "pgmq.q_q.INSERT"`)
			exec(t, d.Pool, `select pgmq.create('q')`)
			if _, err := session(t, d).PgConn().Exec(t.Context(), test.prepare).ReadAll(); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				exec(t, d.Pool, `select pgmq.send_batch('q', '{1,2,3}'::jsonb[])`)
			}
			if got := heard(t, d, listener); len(got) != test.want {
				t.Errorf("%d notifications, want %d", len(got), test.want)
			}
		})
	}
}

// A sender whose transaction stays open makes no other one wait, and does not silence it either.
func TestNotifyingMakesNobodyWait(t *testing.T) {
	t.Parallel()
	for _, isolation := range []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.RepeatableRead, pgx.Serializable} {
		t.Run(string(isolation), func(t *testing.T) {
			t.Parallel()
			d := pgmqtest.New(t)
			exec(t, d.Pool, `select pgmq.create('q'), pgmq.enable_notify_insert('q')`)
			exec(t, d.Pool, `update pgmq.notify_insert_throttle set throttle_interval_ms = 1`)
			listener := session(t, d)
			exec(t, listener, `listen "pgmq.q_q.INSERT"`)

			open, err := session(t, d).Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			exec(t, open, `select pgmq.send('q', '1'::jsonb)`)
			other, err := session(t, d).BeginTx(t.Context(), pgx.TxOptions{IsoLevel: isolation})
			if err != nil {
				t.Fatal(err)
			}
			exec(t, other, `select`) // from here on it sees the row as it is now
			third := session(t, d)
			exec(t, third, `select pgmq.send('q', '2'::jsonb)`)
			exec(t, third, `select pgmq.enable_notify_insert('q', 1)`)
			if got := heard(t, d, listener); !slices.Equal(got, []string{"pgmq.q_q.INSERT"}) {
				t.Errorf("while a transaction is open: %q", got)
			}
			if err := open.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			exec(t, other, `select pgmq.send('q', '3'::jsonb)`)
			if err := other.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := heard(t, d, listener); !slices.Equal(got, []string{"pgmq.q_q.INSERT", "pgmq.q_q.INSERT"}) {
				t.Errorf("after two commits: %q", got)
			}
		})
	}
}

// Enabling what is enabled, as a subscriber does at every start, must not wait for the senders under way.
func TestEnablingAgainDoesNotLockTheQueue(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	exec(t, d.Pool, `select pgmq.create('q'), pgmq.enable_notify_insert('q'), pgmq.create_fifo_index('q')`)
	sender, err := session(t, d).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	exec(t, sender, `select pgmq.send('q', '1'::jsonb)`)
	exec(t, session(t, d), `select pgmq.create('q'), pgmq.enable_notify_insert('q'), pgmq.create_fifo_index('q')`)
	if err := sender.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// The channel has the name as the queue was created, and names that share a table each have their own.
func TestChannels(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	exec(t, d.Pool, `select pgmq.create('Mixed'), pgmq.create('mixed'), pgmq.enable_notify_insert('Mixed', 0)`)
	listener := session(t, d)
	exec(t, listener, `listen "pgmq.q_Mixed.INSERT"`)
	exec(t, listener, `listen "pgmq.q_mixed.INSERT"`)

	exec(t, d.Pool, `select pgmq.send('mixed', '1'::jsonb)`)
	if got := heard(t, d, listener); !slices.Equal(got, []string{"pgmq.q_Mixed.INSERT"}) {
		t.Errorf("heard %q", got)
	}
	exec(t, d.Pool, `select pgmq.enable_notify_insert('mixed', 0)`)
	exec(t, d.Pool, `select pgmq.send('Mixed', '1'::jsonb)`)
	got := heard(t, d, listener)
	slices.Sort(got)
	if !slices.Equal(got, []string{"pgmq.q_Mixed.INSERT", "pgmq.q_mixed.INSERT"}) {
		t.Errorf("heard %q", got)
	}
}

func TestPartitionedQueuesNotify(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	createPartitioned(t, d.Pool, "q")
	exec(t, d.Pool, `select pgmq.enable_notify_insert('q', 0)`)
	listener := session(t, d)
	exec(t, listener, `listen "pgmq.q_q.INSERT"`)
	exec(t, d.Pool, `select pgmq.send_batch('q', (select array_agg(to_jsonb(n)) from generate_series(1, 20) as n))`)
	if got := heard(t, d, listener); !slices.Equal(got, []string{"pgmq.q_q.INSERT"}) {
		t.Errorf("heard %q", got)
	}
}

// createPartitioned makes a partitioned queue as pgmq.create_partitioned does, but for pg_partman, which
// not every server has: with a partition for the ids up to 10, and one for the rest.
func createPartitioned(t testing.TB, on db, queue string) {
	t.Helper()
	exec(t, on, `select pgmq._create_tables($1::text, false, 'msg_id', 'msg_id'), pgmq._register($1::text, true, false)`, queue)
	for _, table := range []string{"q_" + queue, "a_" + queue} {
		first, rest := pgx.Identifier{"pgmq", table + "_p0"}, pgx.Identifier{"pgmq", table + "_default"}
		parent := pgx.Identifier{"pgmq", table}.Sanitize()
		exec(t, on, `create table `+first.Sanitize()+` partition of `+parent+` for values from (1) to (11)`)
		exec(t, on, `create table `+rest.Sanitize()+` partition of `+parent+` default`)
	}
}
