package pgmq_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// However long a message is to be hidden, it is hidden for no less, and for less than a unit of PGMQ's
// clock more: a microsecond where it takes instants, a second where it takes seconds.
func TestDurationsAreRoundedUp(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	conn := newConn(t, d.DSN)
	newQueue(t, pgmq.New(conn), "q")
	durations := rapid.OneOf(
		rapid.Int64Range(0, int64(5*time.Second)),
		rapid.Int64Range(0, int64(200*365*24*time.Hour)),
		rapid.Map(rapid.Int64Range(0, 1_000_000), func(s int64) int64 { return s * int64(time.Second) }),
	)
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		hide := time.Duration(durations.Draw(t, "hide"))
		tx, err := conn.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(ctx) }() // the queue stays empty
		c := pgmq.New(tx)

		before := time.Now()
		id, err := c.Send(ctx, "q", body(`1`), pgmq.VisibleIn(hide))
		if err != nil {
			t.Fatal(err)
		}
		after := time.Now()
		var sentUntil time.Time
		if err := tx.QueryRow(ctx, `select vt from pgmq.q_q where msg_id = $1::bigint`, id).Scan(&sentUntil); err != nil {
			t.Fatal(err)
		}
		// The server's clock is this machine's, in microseconds. Beyond 100 years an interval is exact to
		// a few of them.
		slack := time.Microsecond + hide/1_000_000_000_000
		if sentUntil.Before(before.Add(hide-slack)) || sentUntil.After(after.Add(hide+slack)) {
			t.Fatalf("sent to be visible in %v, it is in %v", hide, sentUntil.Sub(before))
		}

		moved, err := c.SetVisibility(ctx, "q", pgmq.VisibleIn(0), id)
		if err != nil || len(moved) != 1 || moved[0].VisibleAt.After(time.Now().Add(slack)) {
			t.Fatalf("made visible: %v, %v", moved, err)
		}
		vt := min(hide, math.MaxInt32*time.Second)
		before = time.Now()
		msgs, err := c.Read(ctx, "q", vt)
		if err != nil || len(msgs) != 1 {
			t.Fatalf("read: %v, %v", msgs, err)
		}
		if until := msgs[0].VisibleAt; until.Before(before.Add(vt-slack)) || !until.Before(time.Now().Add(vt+time.Second)) {
			t.Fatalf("read to be hidden for %v, it is for %v", vt, until.Sub(before))
		}
	})
}

// Ids are reported as they are there: each once, and none that is not.
func TestIDsAreReported(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	conn := newConn(t, d.DSN)
	const n = 5
	newQueue(t, pgmq.New(conn), "q", `1`, `2`, `3`, `4`, `5`)
	errRollback := errors.New("nothing is to stay")
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		ids := rapid.SliceOf(rapid.OneOf(rapid.Int64Range(-1, n+2), rapid.Int64())).Draw(t, "ids")
		var want []int64
		for id := int64(1); id <= n; id++ {
			if slices.Contains(ids, id) {
				want = append(want, id)
			}
		}
		for name, do := range map[string]func(c *pgmq.Client) ([]int64, error){
			"delete":  func(c *pgmq.Client) ([]int64, error) { return c.Delete(ctx, "q", ids...) },
			"archive": func(c *pgmq.Client) ([]int64, error) { return c.Archive(ctx, "q", ids...) },
			"set visibility": func(c *pgmq.Client) ([]int64, error) {
				msgs, err := c.SetVisibility(ctx, "q", pgmq.VisibleIn(time.Hour), ids...)
				return idsOf(msgs), err
			},
		} {
			err := pgmq.New(conn).InTx(ctx, func(tx *pgmq.Client) error {
				got, err := do(tx)
				slices.Sort(got)
				if err != nil || !slices.Equal(got, want) {
					t.Errorf("%s %v: got %v, %v, want %v", name, ids, got, err, want)
				}
				return errRollback
			})
			if !errors.Is(err, errRollback) {
				t.Fatal(err)
			}
		}
	})
}

// Messages that were read and others come in one result; and those with headers and those without.
func TestMixedMessages(t *testing.T) {
	t.Parallel()
	c := pgmq.New(pgmqtest.New(t).Pool)
	newQueue(t, c, "q")
	if _, err := c.Send(t.Context(), "q", pgmq.Outgoing{Body: []byte(`1`), Headers: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(t.Context(), "q", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Send(t.Context(), "q", pgmq.Outgoing{}); err != nil {
		t.Fatal(err)
	}
	got, err := c.SetVisibility(t.Context(), "q", pgmq.VisibleIn(0), 1, 2)
	if err != nil || len(got) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	if m := got[0]; m.ReadCount != 1 || time.Since(m.LastReadAt).Abs() > time.Minute || string(m.Body) != `1` || string(m.Headers) != `{}` {
		t.Errorf("read: %+v", m)
	}
	if m := got[1]; m.ReadCount != 0 || !m.LastReadAt.IsZero() || m.Body != nil || m.Headers != nil {
		t.Errorf("not read: %+v", m)
	}
}

func TestVisibilityRefuses(t *testing.T) {
	t.Parallel()
	c := pgmq.New(nil)
	tooLate := time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)
	tooEarly := time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		visibility pgmq.Visibility
		want       pgmq.ValueError
	}{
		"negative": {pgmq.VisibleIn(-1), pgmq.ValueError{Name: "visible in", Value: time.Duration(-1), Rule: "zero or more"}},
		"late":     {pgmq.VisibleAt(tooLate), pgmq.ValueError{Name: "visible at", Value: tooLate, Rule: "in the years 1 to 9999"}},
		"early":    {pgmq.VisibleAt(tooEarly), pgmq.ValueError{Name: "visible at", Value: tooEarly, Rule: "in the years 1 to 9999"}},
	} {
		_, err := c.SetVisibility(t.Context(), "q", tt.visibility, 1)
		requireValueError(t, "SetVisibility, "+name, err, tt.want)
		_, err = c.Send(t.Context(), "q", body(`1`), tt.visibility)
		requireValueError(t, "Send, "+name, err, tt.want)
		_, err = c.SendBatch(t.Context(), "q", []pgmq.Outgoing{body(`1`)}, tt.visibility)
		requireValueError(t, "SendBatch, "+name, err, tt.want)
		_, err = c.SendTopic(t.Context(), "a", body(`1`), tt.visibility)
		requireValueError(t, "SendTopic, "+name, err, tt.want)
	}
}
