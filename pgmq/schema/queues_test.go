package schema_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

func TestConcurrentCreates(t *testing.T) {
	t.Parallel()
	for _, create := range []string{
		`select pgmq.create($1::text)`,
		`select pgmq.create_unlogged($1::text)`,
		`select pgmq.create($1::text), pgmq.enable_notify_insert($1::text), pgmq.create_fifo_index($1::text), pgmq.bind_topic('a.*', $1::text)`,
	} {
		d := pgmqtest.New(t)
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				if err := try(t.Context(), d.Pool, create, "Orders"); err != nil {
					t.Errorf("%s: %v", create, err)
				}
			})
		}
		group.Wait()
		if n := one[int64](t, d.Pool, `select count(*) from pgmq.list_queues()`); n != 1 {
			t.Errorf("%d queues", n)
		}
		exec(t, d.Pool, `select pgmq.send('Orders', '1'::jsonb)`)
	}
}

// Whoever only needs a queue to be there must not need the rights to create one.
func TestCreateWhatExistsNeedsNoRights(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	role := newRole(t, d)
	exec(t, d.Pool, `select pgmq.create('q')`)
	exec(t, d.Pool, `grant usage on schema pgmq to `+role)
	exec(t, d.Pool, `grant select on pgmq.meta to `+role)

	conn := session(t, d)
	exec(t, conn, `set role `+role)
	exec(t, conn, `select pgmq.create('q')`)
	if state := stateOf(try(t.Context(), conn, `select pgmq.create('other')`)); state != "42501" {
		t.Errorf("creating another queue: SQLSTATE %q, want 42501", state)
	}
}

func TestDropQueue(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	exec(t, d.Pool, `select pgmq.create('Mixed'), pgmq.create('mixed')`)
	exec(t, d.Pool, `select pgmq.bind_topic('a', 'Mixed'), pgmq.bind_topic('a', 'mixed'), pgmq.enable_notify_insert('mixed')`)
	if !one[bool](t, d.Pool, `select pgmq.drop_queue('Mixed')`) {
		t.Fatal("not dropped")
	}
	left := one[int64](t, d.Pool, `
		select (select count(*) from pgmq.meta)
			+ (select count(*) from pgmq.topic_bindings)
			+ (select count(*) from pgmq.notify_insert_throttle)`)
	if left != 0 {
		t.Errorf("%d rows are left of names that share the dropped tables", left)
	}
	exec(t, d.Pool, `select pgmq.metrics_all()`)
	if one[bool](t, d.Pool, `select pgmq.drop_queue(null)`) {
		t.Error("null was dropped")
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	tests := map[string]string{ // SQLSTATE of create, empty where it succeeds
		"":                           "P0001",
		strings.Repeat("x", 47):      "",
		strings.Repeat("x", 48):      "P0001",
		strings.Repeat("é", 23):      "",
		strings.Repeat("é", 24):      "P0001", // 48 bytes
		"with space":                 "",
		`with "quotes"`:              "",
		"with.dot-and_dash":          "",
		"$":                          "P0001",
		"a;b":                        "P0001",
		"a'b":                        "P0001",
		"a--b":                       "P0001",
		"select":                     "",
		"q(1); drop table pgmq.meta": "P0001",
	}
	for name, want := range tests {
		if got := stateOf(try(t.Context(), d.Pool, `select pgmq.create($1::text)`, name)); got != want {
			t.Errorf("create(%q): SQLSTATE %q, want %q", name, got, want)
		}
		if want != "" {
			continue
		}
		for _, call := range []string{
			`select pgmq.create_fifo_index($1::text), pgmq.enable_notify_insert($1::text), pgmq.bind_topic('a', $1::text)`,
			`select pgmq.send($1::text, '1'::jsonb)`,
			`select pgmq.read_grouped($1::text, 0, 1)`,
			`select pgmq.archive($1::text, array[1]::bigint[])`,
			`select pgmq.metrics($1::text), pgmq._metrics_estimate($1::text)`,
			`select pgmq.purge_queue($1::text)`,
			`select pgmq.disable_notify_insert($1::text)`,
			`select pgmq.drop_queue($1::text)`,
		} {
			exec(t, d.Pool, call, name)
		}
	}
}

// A crash empties an unlogged queue. Its ids must not be given out again: the archive has them already.
func TestUnloggedQueueKeepsItsIDs(t *testing.T) {
	t.Parallel()
	server := pgmqtest.StartServer(t)
	d := server.Database(t)
	exec(t, d.Pool, `select pgmq.create_unlogged('u')`)
	exec(t, d.Pool, `select pgmq.send_batch('u', '{1,2,3}'::jsonb[])`)
	exec(t, d.Pool, `select pgmq.archive('u', 1)`)
	if err := server.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn := session(t, d)
	if id := one[int64](t, conn, `select pgmq.send('u', '4'::jsonb)`); id <= 3 {
		t.Errorf("id %d is given out again", id)
	}
	exec(t, conn, `select pgmq.archive('u', (select msg_id from pgmq.q_u))`)
	if archived := one[int64](t, conn, `select count(*) from pgmq.a_u`); archived != 2 {
		t.Errorf("%d messages in the archive, want 2", archived)
	}
}

// newRole makes a role of the test's own; roles belong to the whole server.
func newRole(t testing.TB, d *pgmqtest.Database) string {
	t.Helper()
	name := "role_of_" + one[string](t, d.Pool, `select current_database()::text`)
	exec(t, d.Pool, `create role `+name)
	t.Cleanup(func() {
		for _, statement := range []string{`drop owned by ` + name, `drop role ` + name} {
			if err := try(context.Background(), d.Pool, statement); err != nil {
				t.Error(err)
			}
		}
	})
	return name
}
