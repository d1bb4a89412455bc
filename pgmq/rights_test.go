package pgmq_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

// The error names exactly what is missing: when that is granted the call works, and when any of it is revoked
// again it does not.
func TestMissingRightsAreExact(t *testing.T) {
	t.Parallel()
	calls := map[string]call{
		"send": func(ctx context.Context, c *pgmq.Client) error {
			_, err := c.Send(ctx, "orders", pgmq.Outgoing{})
			return err
		},
		"send_topic": func(ctx context.Context, c *pgmq.Client) error {
			_, err := c.SendTopic(ctx, "orders.placed", pgmq.Outgoing{Body: []byte(`1`)})
			return err
		},
		"send, notifying": func(ctx context.Context, c *pgmq.Client) error {
			_, err := c.Send(ctx, "loud", pgmq.Outgoing{})
			return err
		},
		"read": func(ctx context.Context, c *pgmq.Client) error { _, err := c.Read(ctx, "orders", 0); return err },
		"read, grouped": func(ctx context.Context, c *pgmq.Client) error {
			_, err := c.Read(ctx, "orders", 0, pgmq.Grouped(pgmq.RoundRobin))
			return err
		},
		"set_vt": func(ctx context.Context, c *pgmq.Client) error {
			_, err := c.SetVisibility(ctx, "orders", pgmq.VisibleIn(0), 1)
			return err
		},
		"pop":    func(ctx context.Context, c *pgmq.Client) error { _, err := c.Pop(ctx, "orders", 1); return err },
		"delete": func(ctx context.Context, c *pgmq.Client) error { _, err := c.Delete(ctx, "orders", 1); return err },
		"archive": func(ctx context.Context, c *pgmq.Client) error {
			_, err := c.Archive(ctx, "orders", 1)
			return err
		},
		"metrics": func(ctx context.Context, c *pgmq.Client) error { _, err := c.Metrics(ctx, "orders"); return err },
		"estimate": func(ctx context.Context, c *pgmq.Client) error {
			_, err := c.EstimateMetrics(ctx, "orders")
			return err
		},
		"metrics_all": func(ctx context.Context, c *pgmq.Client) error { _, err := c.MetricsAll(ctx); return err },
		"purge":       func(ctx context.Context, c *pgmq.Client) error { _, err := c.Purge(ctx, "orders"); return err },
		"create":      func(ctx context.Context, c *pgmq.Client) error { return c.CreateQueue(ctx, "new") },
		"list_queues": func(ctx context.Context, c *pgmq.Client) error { _, err := c.Queues(ctx); return err },
		"bind_topic":  func(ctx context.Context, c *pgmq.Client) error { return c.BindTopic(ctx, "a", "orders") },
		"unbind_topic": func(ctx context.Context, c *pgmq.Client) error {
			_, err := c.UnbindTopic(ctx, "#", "orders")
			return err
		},
		"bindings":     func(ctx context.Context, c *pgmq.Client) error { _, err := c.Bindings(ctx); return err },
		"routes":       func(ctx context.Context, c *pgmq.Client) error { _, err := c.Routes(ctx, "orders.placed"); return err },
		"drop_queue":   func(ctx context.Context, c *pgmq.Client) error { _, err := c.DropQueue(ctx, "orders"); return err },
		"index_groups": func(ctx context.Context, c *pgmq.Client) error { return c.IndexGroups(ctx, "orders") },
		"enable_notify_insert": func(ctx context.Context, c *pgmq.Client) error {
			return c.EnableNotify(ctx, "orders", time.Second)
		},
		"update_notify_insert": func(ctx context.Context, c *pgmq.Client) error {
			return c.UpdateNotify(ctx, "loud", time.Minute)
		},
		"disable_notify_insert": func(ctx context.Context, c *pgmq.Client) error { return c.DisableNotify(ctx, "loud") },
		"throttles":             func(ctx context.Context, c *pgmq.Client) error { _, err := c.NotifyThrottles(ctx); return err },
	}
	for name, f := range calls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newEmbedded(t)
			fillForRoles(t, pgmq.New(d.Pool))
			role := newRole(t, d)
			owner := newNamedRole(t, d, "owner_"+role)
			for _, table := range values[string](t, d, `select format('pgmq.%I', relname) from pg_class where relname ~ '^[qa]_' and relkind = 'r'`) {
				run(t, d, `alter table `+table+` owner to `+owner)
			}
			c, _ := asRole(t, d, role)
			undone := errors.New("undone")
			try := func() error { // and leaves everything as it is
				err := c.InTx(t.Context(), func(tx *pgmq.Client) error { return inTurn(f(t.Context(), tx), func() error { return undone }) })
				if errors.Is(err, undone) {
					return nil
				}
				return err
			}

			needed := map[string]bool{} // each round must name something new
			for err := try(); err != nil; err = try() {
				var rights *pgmq.RightsError
				if !errors.As(err, &rights) {
					t.Fatalf("%v does not name a right", err)
				}
				if err := f(t.Context(), c); !errors.As(err, &rights) {
					t.Fatalf("outside of a transaction: %v does not name a right", err)
				}
				for _, missing := range rights.Missing {
					missing = strings.TrimPrefix(missing, "membership in role ")
					if needed[missing] {
						t.Fatalf("%q is named again: %v", missing, err)
					}
					needed[missing] = true
					run(t, d, `grant `+missing+` to `+role)
				}
			}
			if len(needed) < 2 {
				t.Errorf("only %v was missing", needed)
			}
			for right := range needed {
				run(t, d, `revoke `+right+` from `+role)
				if err := try(); !errors.Is(err, pgmq.ErrPermissionDenied) && !sometimes[name+": "+right] {
					t.Errorf("%q is not needed: %v", right, err)
				}
				run(t, d, `grant `+right+` to `+role)
			}
		})
	}
}

// sometimes are rights that depend on what is in the tables.
var sometimes = map[string]bool{
	"enable_notify_insert: UPDATE (throttle_interval_ms) on table pgmq.notify_insert_throttle": true, // enabled already
}

// Policies of row security hold for what the client does: its functions have the rights of their callers.
func TestRowSecurity(t *testing.T) {
	t.Parallel()
	d := newEmbedded(t)
	owner := pgmq.New(d.Pool)
	newQueue(t, owner, "shared", `{"tenant": "a"}`, `{"tenant": "b"}`, `{"tenant": "a"}`)
	role := newRole(t, d)
	must(t, owner.Grant(t.Context(), role, pgmq.Consume("shared"), pgmq.Publish("shared"), pgmq.Monitor("shared")))
	run(t, d, `alter table pgmq.q_shared enable row level security`)
	c, _ := asRole(t, d, role)
	if msgs, err := c.Read(t.Context(), "shared", 0, pgmq.Limit(9)); err != nil || len(msgs) > 0 {
		t.Errorf("without a policy: %v, %v", msgs, err)
	}
	run(t, d, `create policy tenant_a on pgmq.q_shared to `+role+` using (message ->> 'tenant' = 'a')`)
	if msgs, err := c.Read(t.Context(), "shared", 0, pgmq.Limit(9)); err != nil || len(msgs) != 2 || msgs[0].ID != 1 || msgs[1].ID != 3 {
		t.Errorf("Read: %v, %v; want messages 1 and 3", msgs, err)
	}
	if ids, err := c.Delete(t.Context(), "shared", 1, 2); err != nil || !slices.Equal(ids, []int64{1}) {
		t.Errorf("Delete: %v, %v; want message 1", ids, err)
	}
	if m, err := c.Metrics(t.Context(), "shared"); err != nil || m.Length != 1 {
		t.Errorf("Metrics: %+v, %v; want one message", m, err)
	}
	if _, err := c.Send(t.Context(), "shared", body(`{"tenant": "a"}`)); err != nil {
		t.Error(err)
	}
	if _, err := c.Send(t.Context(), "shared", body(`{"tenant": "b"}`)); !errors.Is(err, pgmq.ErrPermissionDenied) {
		t.Errorf("Send for another tenant: %v", err)
	}
}
