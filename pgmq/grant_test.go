package pgmq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// What a role can do through the client with what it was granted, and what it cannot.
func TestGrant(t *testing.T) {
	t.Parallel()
	send := func(queue string) call {
		return func(ctx context.Context, c *pgmq.Client) error {
			_, err := c.Send(ctx, queue, pgmq.Outgoing{Body: []byte(`1`), Headers: []byte(`{}`)}, pgmq.VisibleIn(0))
			return inTurn(err, func() error {
				_, err := c.SendBatch(ctx, queue, []pgmq.Outgoing{{Body: []byte(`1`)}, {Body: []byte(`2`)}})
				return err
			})
		}
	}
	sendTopic := func(key string) call {
		return func(ctx context.Context, c *pgmq.Client) error {
			_, err := c.SendTopic(ctx, key, pgmq.Outgoing{Body: []byte(`1`)})
			return err
		}
	}
	read := func(queue string, opts ...pgmq.ReadOption) call {
		return func(ctx context.Context, c *pgmq.Client) error {
			_, err := c.Read(ctx, queue, 0, opts...)
			return err
		}
	}
	settle := func(queue string) call {
		return func(ctx context.Context, c *pgmq.Client) error {
			_, err := c.SetVisibility(ctx, queue, pgmq.VisibleIn(0), 1)
			return inTurn(
				err,
				func() error { _, err := c.Archive(ctx, queue, 1); return err },
				func() error { _, err := c.Delete(ctx, queue, 2); return err },
				func() error { _, err := c.Pop(ctx, queue, 1); return err },
			)
		}
	}
	drop := func(queue string) call {
		return func(ctx context.Context, c *pgmq.Client) error { _, err := c.DropQueue(ctx, queue); return err }
	}
	purge := func(queue string) call {
		return func(ctx context.Context, c *pgmq.Client) error { _, err := c.Purge(ctx, queue); return err }
	}
	metrics := func(queue string) call {
		return func(ctx context.Context, c *pgmq.Client) error {
			_, err := c.Metrics(ctx, queue)
			return inTurn(err, func() error { _, err := c.EstimateMetrics(ctx, queue); return err })
		}
	}
	look := func(ctx context.Context, c *pgmq.Client) error {
		_, err := c.Queues(ctx)
		return inTurn(
			err,
			func() error { _, err := c.Bindings(ctx); return err },
			func() error { _, err := c.NotifyThrottles(ctx); return err },
			func() error { _, err := c.MetricsAll(ctx); return err },
		)
	}
	create := func(ctx context.Context, c *pgmq.Client) error { return c.CreateQueue(ctx, "mine") }
	bind := func(ctx context.Context, c *pgmq.Client) error { return c.BindTopic(ctx, "#", "orders") }
	unbind := func(ctx context.Context, c *pgmq.Client) error {
		_, err := c.UnbindTopic(ctx, "orders.*", "orders")
		return err
	}
	throttle := func(ctx context.Context, c *pgmq.Client) error { return c.UpdateNotify(ctx, "loud", time.Hour) }

	tests := map[string]struct {
		access []pgmq.Access
		may    map[string]call
		mayNot map[string]call
		sql    []string // that are refused, too
	}{
		"publisher": {
			access: []pgmq.Access{pgmq.Publish("orders")},
			may:    map[string]call{"send": send("orders")},
			mayNot: map[string]call{
				"send elsewhere": send("other"), "send to a topic": sendTopic("orders.placed"), "read": read("orders"),
				"settle": settle("orders"), "drop": drop("orders"), "purge": purge("orders"), "count": metrics("orders"),
				"create": create, "bind": bind, "throttle": throttle, "look": look,
			},
			sql: []string{
				`select message from pgmq.q_orders`, `select headers from pgmq.q_orders`, `select vt from pgmq.q_orders`,
				`insert into pgmq.q_orders (vt, message, enqueued_at) values (now(), '1', now())`,
				`insert into pgmq.q_orders (msg_id, vt) overriding system value values (9, now())`,
				`insert into pgmq.q_orders (vt, message) values (now(), '1') returning message`,
				`update pgmq.q_orders set message = '1'`, `delete from pgmq.q_orders`, `select from pgmq.a_orders`,
				`insert into pgmq.a_orders (msg_id, vt) values (9, now())`,
				`update pgmq.notify_insert_throttle set throttle_interval_ms = 0`, `insert into pgmq.meta values ('x', false, false)`,
				`update pgmq._ledger set version = 9`,
			},
		},
		"publisher to topics": {
			access: []pgmq.Access{pgmq.PublishTopics("orders.placed")},
			may:    map[string]call{"send": send("orders"), "send to a topic": sendTopic("orders.placed"), "to another one for the queue": sendTopic("orders.shipped")},
			mayNot: map[string]call{
				"send elsewhere": sendTopic("other"), "read": read("orders"), "bind": bind, "unbind": unbind, "drop": drop("orders"),
			},
			sql: []string{`select message from pgmq.q_orders`, `insert into pgmq.topic_bindings (pattern, queue_name) values ('#', 'orders')`},
		},
		"publisher to all topics": {
			access: []pgmq.Access{pgmq.PublishTopics()},
			may:    map[string]call{"one": sendTopic("orders.placed"), "the other": sendTopic("other")},
			mayNot: map[string]call{"read": read("other"), "send to what is not bound": send("unbound")},
		},
		"consumer": {
			access: []pgmq.Access{pgmq.Consume("orders")},
			may: map[string]call{
				"read": read("orders"), "read groups": read("orders", pgmq.Grouped(pgmq.Fill)), "settle": settle("orders"),
				"work": worker("orders", false), "work and archive": worker("orders", true),
				"look": func(ctx context.Context, c *pgmq.Client) error { _, err := c.Queues(ctx); return err },
			},
			mayNot: map[string]call{
				"send": send("orders"), "send elsewhere": send("other"), "read elsewhere": read("other"), "drop": drop("orders"),
				"purge": purge("orders"), "create": create, "bind": bind, "unbind": unbind, "throttle": throttle,
			},
			sql: []string{
				`select message from pgmq.q_other`, `select message from pgmq.a_orders`, `select from pgmq.a_other`,
				`update pgmq.q_orders set message = '1'`, `update pgmq.q_orders set headers = '{}'`,
				`update pgmq.q_orders set enqueued_at = now()`, `delete from pgmq.a_orders`, `truncate pgmq.q_orders`,
				`insert into pgmq.q_orders (vt) values (now())`, `create trigger t after insert on pgmq.q_orders execute function suppress_redundant_updates_trigger()`,
			},
		},
		"monitor": {
			access: []pgmq.Access{pgmq.Monitor()},
			may:    map[string]call{"count": metrics("orders"), "count elsewhere": metrics("other"), "look": look},
			mayNot: map[string]call{
				"send": send("orders"), "read": read("orders"), "settle": settle("orders"), "drop": drop("orders"),
				"purge": purge("orders"), "create": create, "bind": bind, "unbind": unbind, "throttle": throttle,
			},
			sql: []string{
				`select message from pgmq.q_orders`, `select headers from pgmq.q_orders`, `select message from pgmq.a_orders`,
				`select q from pgmq.q_orders as q`, `select from pgmq.q_orders for update`, `select nextval('pgmq.q_orders_msg_id_seq')`,
			},
		},
		"monitor of one queue": {
			access: []pgmq.Access{pgmq.Monitor("orders")},
			may:    map[string]call{"count": metrics("orders")},
			mayNot: map[string]call{"count elsewhere": metrics("other"), "count all": look},
		},
		"several": {
			access: []pgmq.Access{pgmq.Publish("orders"), pgmq.Consume("other"), pgmq.Monitor("orders")},
			may:    map[string]call{"send": send("orders"), "read": read("other"), "count": metrics("orders")},
			mayNot: map[string]call{"send elsewhere": send("other"), "read elsewhere": read("orders")},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newEmbedded(t)
			owner := pgmq.New(d.Pool)
			fillForRoles(t, owner)
			role := newRole(t, d)
			c, conn := asRole(t, d, role)

			for name, f := range test.may {
				if err := f(t.Context(), c); !errors.Is(err, pgmq.ErrPermissionDenied) {
					t.Errorf("%s, before the grant: %v", name, err)
				}
			}
			for range 2 { // it may be repeated
				if err := owner.Grant(t.Context(), role, test.access...); err != nil {
					t.Fatal(err)
				}
			}
			for name, f := range test.may {
				if err := f(t.Context(), c); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			for name, f := range test.mayNot {
				err := f(t.Context(), c)
				var rights *pgmq.RightsError
				if !errors.As(err, &rights) || !errors.Is(err, pgmq.ErrPermissionDenied) || rights.Role != role {
					t.Errorf("%s: %v, want an error that names what is missing", name, err)
				}
			}
			for _, statement := range test.sql {
				if _, err := conn.Exec(t.Context(), statement); err == nil || !strings.Contains(err.Error(), "42501") {
					t.Errorf("%s: %v", statement, err)
				}
			}

			if err := owner.Revoke(t.Context(), role); err != nil {
				t.Fatal(err)
			}
			for name, f := range test.may {
				if err := f(t.Context(), c); !errors.Is(err, pgmq.ErrPermissionDenied) {
					t.Errorf("%s, after the revoke: %v", name, err)
				}
			}
			if left := granted(t, d, role); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	d := newEmbedded(t)
	owner := pgmq.New(d.Pool)
	fillForRoles(t, owner)
	role := newRole(t, d)
	must(t, owner.Grant(t.Context(), role, pgmq.Publish("orders", "other"), pgmq.Consume("orders", "loud"), pgmq.Monitor()))
	must(t, owner.Revoke(t.Context(), role, pgmq.Consume("orders"), pgmq.Publish("other"), pgmq.Monitor()))
	must(t, owner.Grant(t.Context(), role, pgmq.Publish("orders"))) // what both had in common
	c, _ := asRole(t, d, role)
	if _, err := c.Send(t.Context(), "orders", pgmq.Outgoing{}); err != nil {
		t.Errorf("send, which was not revoked: %v", err)
	}
	if _, err := c.Queues(t.Context()); err != nil {
		t.Errorf("what is not on a queue: %v", err)
	}
	if _, err := c.Send(t.Context(), "other", pgmq.Outgoing{}); !errors.Is(err, pgmq.ErrPermissionDenied) {
		t.Errorf("send: %v", err)
	}
	if _, err := c.Read(t.Context(), "orders", 0); !errors.Is(err, pgmq.ErrPermissionDenied) {
		t.Errorf("read: %v", err)
	}
	if _, err := c.Metrics(t.Context(), "orders"); !errors.Is(err, pgmq.ErrPermissionDenied) {
		t.Errorf("metrics: %v", err)
	}
}

func TestGrantRefuses(t *testing.T) {
	t.Parallel()
	d := newEmbedded(t)
	owner := pgmq.New(d.Pool)
	fillForRoles(t, owner)
	role := newRole(t, d)
	other, _ := asRole(t, d, role)
	var (
		value  *pgmq.ValueError
		rights *pgmq.RightsError
	)
	tests := map[string]struct {
		client *pgmq.Client
		role   string
		access []pgmq.Access
		want   any // a sentinel, or a pointer for errors.As
	}{
		"nothing":           {owner, role, nil, &value},
		"no queue":          {owner, role, []pgmq.Access{pgmq.Publish()}, &value},
		"none to consume":   {owner, role, []pgmq.Access{pgmq.Consume()}, &value},
		"a missing role":    {owner, role + "x", []pgmq.Access{pgmq.Publish("orders")}, pgmq.ErrRoleNotFound},
		"no role":           {owner, "", []pgmq.Access{pgmq.Publish("orders")}, pgmq.ErrRoleNotFound},
		"a missing queue":   {owner, role, []pgmq.Access{pgmq.Publish("orders"), pgmq.Consume("missing")}, pgmq.ErrQueueNotFound},
		"an illegal name":   {owner, role, []pgmq.Access{pgmq.Publish("orders;")}, pgmq.ErrInvalidQueueName},
		"an illegal topic":  {owner, role, []pgmq.Access{pgmq.PublishTopics("orders.*")}, pgmq.ErrInvalidTopic},
		"no handle":         {pgmq.New(nil), role, []pgmq.Access{pgmq.Publish("orders")}, pgmq.ErrNilDB},
		"somebody else":     {other, role, []pgmq.Access{pgmq.Publish("orders")}, pgmq.ErrPermissionDenied},
		"somebody who sees": {other, role, []pgmq.Access{pgmq.Publish("orders"), pgmq.Consume("orders")}, &rights},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := test.client.Grant(t.Context(), test.role, test.access...)
			var failed *pgmq.Error
			if !errors.As(err, &failed) || failed.Op != "grant" {
				t.Errorf("error %v is not one of grant", err)
			}
			if sentinel, ok := test.want.(error); ok && !errors.Is(err, sentinel) || !ok && !errors.As(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if left := granted(t, d, role); len(left) > 0 {
				t.Errorf("granted all the same: %q", left)
			}
		})
	}
	// Having a right is not having the right to grant it: Postgres would only warn.
	must(t, owner.Grant(t.Context(), role, pgmq.Consume("orders")))
	if err := other.Grant(t.Context(), role, pgmq.Publish("orders")); !errors.As(err, &rights) || !strings.HasPrefix(rights.Missing[0], "membership in role ") {
		t.Errorf("Grant by a consumer: %v", err)
	}
	if err := other.Revoke(t.Context(), role, pgmq.Consume("orders")); !errors.As(err, &rights) {
		t.Errorf("Revoke by a consumer: %v", err)
	}
	if err := owner.Revoke(t.Context(), role+"x"); !errors.Is(err, pgmq.ErrRoleNotFound) {
		t.Errorf("Revoke: %v", err)
	}
}

// Names are quoted, whatever they are; and who grants at the same time waits.
func TestGrantToMany(t *testing.T) {
	t.Parallel()
	d := newEmbedded(t)
	c := pgmq.New(d.Pool)
	const queue = `Orders "of" ours`
	must(t, c.CreateQueue(t.Context(), queue))
	var wait sync.WaitGroup
	for i := range 10 {
		role := newNamedRole(t, d, fmt.Sprintf(`"; drop schema pgmq; -- %s %d`, databaseOf(t, d), i))
		wait.Go(func() {
			if err := c.Grant(t.Context(), role, pgmq.Publish(queue), pgmq.Monitor()); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
}

func TestGrantInATransaction(t *testing.T) {
	t.Parallel()
	d := newEmbedded(t)
	fillForRoles(t, pgmq.New(d.Pool))
	role := newRole(t, d)
	undone := errors.New("undone")
	err := pgmq.New(d.Pool).InTx(t.Context(), func(tx *pgmq.Client) error {
		if err := tx.CreateQueue(t.Context(), "fresh"); err != nil {
			return err
		}
		if err := tx.Grant(t.Context(), role, pgmq.Publish("fresh")); err != nil {
			return err
		}
		return undone
	})
	if !errors.Is(err, undone) {
		t.Error(err)
	}
	if left := granted(t, d, role); len(left) > 0 {
		t.Errorf("granted all the same: %q", left)
	}
}

type call func(ctx context.Context, c *pgmq.Client) error

// worker reads one message and acks it. A Reader would try again and again where it may not.
func worker(queue string, archive bool) call {
	return func(ctx context.Context, c *pgmq.Client) error {
		if _, err := c.Read(ctx, queue, 0); err != nil {
			return err
		}
		r, err := c.NewReader(ctx, queue, pgmq.ReaderConfig{Archive: archive, VisibilityTimeout: time.Minute})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		lease, err := r.Next(ctx)
		if err == nil {
			lease.Ack()
		}
		return inTurn(err, func() error { return r.Close(ctx) })
	}
}

// fillForRoles makes queues "orders" (bound to orders.*), "other" (bound to other), "loud", which
// notifies, and "unbound", each with messages.
func fillForRoles(t testing.TB, c *pgmq.Client) {
	t.Helper()
	bodies := slices.Repeat([]string{`{"card": "4111"}`}, 50)
	for _, queue := range []string{"orders", "other", "loud", "unbound"} {
		newQueue(t, c, queue, bodies...)
	}
	must(t, c.BindTopic(t.Context(), "orders.*", "orders"))
	must(t, c.BindTopic(t.Context(), "other", "other"))
	must(t, c.EnableNotify(t.Context(), "loud", time.Millisecond))
}

// asRole is a client, and its pool, for a role.
func asRole(t testing.TB, d *pgmqtest.Database, role string) (*pgmq.Client, *pgxpool.Pool) {
	t.Helper()
	config, err := pgxpool.ParseConfig(d.DSN)
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.RuntimeParams["role"] = role
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pgmq.New(pool), pool
}

// granted lists the tables and schemas on which a role has been granted something.
func granted(t testing.TB, d *pgmqtest.Database, role string) []string {
	t.Helper()
	return values[string](t, d, `
		select pg_describe_object(d.classid, d.objid, d.objsubid)
		from pg_shdepend as d
		where d.refclassid = 'pg_authid'::regclass
			and d.refobjid = (select oid from pg_roles where rolname = '`+role+`')
			and d.dbid = (select oid from pg_database where datname = current_database())`)
}

// inTurn calls functions up to the first error.
func inTurn(err error, next ...func() error) error {
	for i := 0; err == nil && i < len(next); i++ {
		err = next[i]()
	}
	return err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
