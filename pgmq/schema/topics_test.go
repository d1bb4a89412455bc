package schema_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// The index must find every binding that the definition of a match finds: the regular expression of its
// pattern, evaluated for all of them.
func TestRoutingFindsWhatMatches(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	conn := session(t, d)
	exec(t, conn, `select pgmq.create('q')`)

	segment := rapid.StringMatching(`[ab]{1,2}`)
	path := func(segment *rapid.Generator[string]) *rapid.Generator[string] {
		return rapid.Custom(func(t *rapid.T) string {
			return strings.Join(rapid.SliceOfN(segment, 1, 4).Draw(t, "segments"), ".")
		})
	}
	wild := rapid.OneOf(segment, rapid.SampledFrom([]string{"*", "#", "a*", "#b", "a#b", "*a", "a*b#"}))

	rapid.Check(t, func(rt *rapid.T) {
		patterns := rapid.SliceOfNDistinct(path(wild), 1, 12, rapid.ID).Draw(rt, "patterns")
		key := path(segment).Draw(rt, "key")
		exec(t, conn, `delete from pgmq.topic_bindings`)
		var want []string
		for _, pattern := range patterns {
			exec(t, conn, `select pgmq.bind_topic($1::text, 'q')`, pattern)
			expression := strings.NewReplacer(".", `\.`, "*", `[^.]+`, "#", `.*`).Replace(pattern)
			if regexp.MustCompile(`^` + expression + `$`).MatchString(key) {
				want = append(want, pattern)
			}
		}
		slices.Sort(want)
		got := column[string](t, conn, `select pattern from pgmq.test_routing($1::text)`, key)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			rt.Fatalf("key %q matches %q, want %q", key, got, want)
		}
	})
}

// A session that has routed among few bindings keeps its plan. It must be as good when there are many.
func TestRoutingLooksAtFewBindings(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	exec(t, d.Pool, `alter table pgmq.topic_bindings set (autovacuum_enabled = off)`) // its analyze would help
	exec(t, d.Pool, `select pgmq.create('q')`)
	conn := session(t, d)
	send := func(on db) {
		if sent := one[int64](t, on, `select pgmq.send_topic('orders.eu.created', '1'::jsonb)`); sent != 1 {
			t.Errorf("sent to %d queues, want 1", sent)
		}
	}

	for _, pattern := range []string{"orders.eu.created", "orders.*.created", "#.created", "other.#"} {
		exec(t, conn, `select pgmq.bind_topic($1::text, 'q')`, pattern)
	}
	exec(t, conn, `analyze pgmq.topic_bindings`) // so that the server knows how few they are
	for range 10 {
		send(conn)
	}
	exec(t, conn, `
		insert into pgmq.topic_bindings (pattern, queue_name)
		select replace(p.pattern, 'N', n::text), 'q'
		from generate_series(1, 2500) as n
		cross join unnest('{orders.eu.N, orders.N.*, customers.N.#, *.N}'::text[]) as p (pattern)`)
	looked := rowsLookedAt(t, conn, "topic_bindings", func(tx pgx.Tx) { send(tx) })
	if looked > 20 {
		t.Errorf("3 of 10004 bindings found by looking at %d", looked)
	}
}
