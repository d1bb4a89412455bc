package schema_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

var strategies = []string{"read_grouped", "read_grouped_rr", "read_grouped_head"}

// indexings are the ways a queue may be read by groups: right in both, fast in one.
var indexings = map[string]string{
	"with index":    `select pgmq.create_fifo_index('q')`,
	"without index": `select`,
}

// sendGroups sends one message per name; its group is the first letter.
func sendGroups(t testing.TB, on db, queue string, names ...string) {
	t.Helper()
	exec(t, on, `
		select pgmq.send_batch(
			$1::text,
			(select array_agg(to_jsonb(n) order by place) from unnest($2::text[]) with ordinality as u (n, place)),
			(
				select array_agg(jsonb_build_object('x-pgmq-group', left(n, 1)) order by place)
				from unnest($2::text[]) with ordinality as u (n, place)
			)
		)`, queue, names)
}

func readNames(t testing.TB, on db, strategy, queue string, limit int) []string {
	t.Helper()
	names, err := tryReadNames(t.Context(), on, strategy, queue, limit)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func tryReadNames(ctx context.Context, on db, strategy, queue string, limit int) ([]string, error) {
	return tryColumn[string](ctx, on, `
		select message #>> '{}' from pgmq.`+strategy+`($1::text, 30, $2::integer)`, queue, limit)
}

// A reader with an open transaction holds the groups it took and nothing else: the next one gets the next
// groups at once, also when it asks for more than there is.
func TestGroupedReadersShareTheGroups(t *testing.T) {
	t.Parallel()
	names := []string{"a1", "a2", "b1", "c1", "b2", "d1", "a3"}
	tests := []struct {
		strategy      string
		limit         int
		first, second []string
	}{
		{"read_grouped", 2, []string{"a1", "a2"}, []string{"b1", "b2", "c1", "d1"}},
		{"read_grouped", 3, []string{"a1", "a2", "a3"}, []string{"b1", "b2", "c1", "d1"}},
		{"read_grouped", 4, []string{"a1", "a2", "a3", "b1"}, []string{"c1", "d1"}},
		{"read_grouped_rr", 2, []string{"a1", "b1"}, []string{"c1", "d1"}},
		{"read_grouped_head", 3, []string{"a1", "b1", "c1"}, []string{"d1"}},
	}
	for _, test := range tests {
		for indexing, index := range indexings {
			t.Run(fmt.Sprint(test.strategy, test.limit, indexing), func(t *testing.T) {
				t.Parallel()
				d := pgmqtest.New(t)
				exec(t, d.Pool, `select pgmq.create('q')`)
				exec(t, d.Pool, index)
				sendGroups(t, d.Pool, "q", names...)

				tx, err := session(t, d).Begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if got := readNames(t, tx, test.strategy, "q", test.limit); !slices.Equal(got, test.first) {
					t.Fatalf("first reader: %q, want %q", got, test.first)
				}
				if got := readNames(t, session(t, d), test.strategy, "q", 10); !slices.Equal(got, test.second) {
					t.Errorf("second reader: %q, want %q", got, test.second)
				}
				if err := tx.Rollback(t.Context()); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

func TestQueuesWithTheSameGroupsDoNotMeet(t *testing.T) {
	t.Parallel()
	for _, strategy := range strategies {
		t.Run(strategy, func(t *testing.T) {
			t.Parallel()
			d := pgmqtest.New(t)
			for _, queue := range []string{"q", "r"} {
				exec(t, d.Pool, `select pgmq.create($1::text)`, queue)
				sendGroups(t, d.Pool, queue, "a1")
			}
			tx, err := session(t, d).Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			readNames(t, tx, strategy, "q", 1)
			if got := readNames(t, session(t, d), strategy, "r", 1); !slices.Equal(got, []string{"a1"}) {
				t.Errorf("from the other queue: %q", got)
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// What changes between the moment from which a read sees the queue and the moment at which it locks what it
// takes. The reader is held at its first look at a message's group.
func TestGroupOrderHoldsWhenMessagesChangeDuringARead(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change string // of a1 (1), a2 (2), a3 (3), b1 (4)
		limit  int
		want   map[string][]string
	}{
		"two are taken": {
			`select pgmq.read('q', 30, 2)`, 10,
			map[string][]string{"read_grouped": {"b1"}, "read_grouped_rr": {"b1"}, "read_grouped_head": {"b1"}},
		},
		"two are taken, one is wanted": {
			`select pgmq.read('q', 30, 2)`, 1,
			map[string][]string{"read_grouped": {"b1"}, "read_grouped_rr": {"b1"}, "read_grouped_head": {"b1"}},
		},
		"two are taken, the first is given back": {
			`select pgmq.read('q', 30, 2); select pgmq.set_vt('q', 1, now() - interval '1 hour')`, 10,
			map[string][]string{"read_grouped": {"a1", "b1"}, "read_grouped_rr": {"a1", "b1"}, "read_grouped_head": {"a1", "b1"}},
		},
		"the second is delayed": {
			`select pgmq.set_vt('q', 2, 30)`, 10,
			map[string][]string{"read_grouped": {"a1", "b1"}, "read_grouped_rr": {"a1", "b1"}, "read_grouped_head": {"a1", "b1"}},
		},
		"the first is deleted": {
			`select pgmq.delete('q', 1)`, 10,
			map[string][]string{"read_grouped": {"b1"}, "read_grouped_rr": {"b1"}, "read_grouped_head": {"b1"}},
		},
		"nothing that matters": {
			`select pgmq.set_vt('q', 3, now() - interval '1 hour')`, 10,
			map[string][]string{
				"read_grouped": {"a1", "a2", "a3", "b1"}, "read_grouped_rr": {"a1", "b1", "a2", "a3"}, "read_grouped_head": {"a1", "b1"},
			},
		},
	}
	for name, test := range tests {
		for _, strategy := range strategies {
			t.Run(name+" "+strategy, func(t *testing.T) {
				t.Parallel()
				d := pgmqtest.New(t)
				exec(t, d.Pool, `select pgmq.create('q')`)
				sendGroups(t, d.Pool, "q", "a1", "a2", "a3", "b1")
				exec(t, d.Pool, `
					create or replace function pgmq._group_key(headers jsonb) returns text
					language plpgsql immutable
					as $$
					begin
						perform pg_advisory_xact_lock_shared(1);
						return headers ->> 'x-pgmq-group';
					end;
					$$`)
				gate, reader := session(t, d), session(t, d)
				exec(t, reader, `set lock_timeout = 0`)
				exec(t, gate, `select pg_advisory_lock(1)`)

				var wait sync.WaitGroup
				var got []string
				var err error
				wait.Go(func() { got, err = tryReadNames(t.Context(), reader, strategy, "q", test.limit) })
				for !one[bool](t, gate, `
					select exists (
						select
						from pg_locks as l
						join pg_database as d on d.oid = l.database
						where d.datname = current_database() and l.locktype = 'advisory' and not l.granted
					)`) {
					runtime.Gosched()
				}
				for statement := range strings.SplitSeq(test.change, ";") {
					exec(t, d.Pool, statement)
				}
				exec(t, gate, `select pg_advisory_unlock(1)`)
				wait.Wait()
				if want := test.want[strategy]; err != nil || !slices.Equal(got, want) {
					t.Errorf("read %q, %v, want %q", got, err, want)
				}
			})
		}
	}
}

// Many readers take, settle and give back messages of few groups, all at once. Whatever a read returns, no
// earlier message of its group may exist that it did not return.
func TestGroupOrderHoldsAmongConcurrentReaders(t *testing.T) {
	t.Parallel()
	const (
		readers   = 12
		groups    = 5
		perGroup  = 60
		batchSize = 7
	)
	for indexing, index := range indexings {
		for _, strategy := range strategies {
			t.Run(strategy+" "+indexing, func(t *testing.T) {
				t.Parallel()
				d := pgmqtest.New(t)
				exec(t, d.Pool, `select pgmq.create('q')`)
				exec(t, d.Pool, index)
				var names []string
				for i := range groups * perGroup {
					names = append(names, fmt.Sprintf("%c%d", 'a'+i%groups, i/groups))
				}
				sendGroups(t, d.Pool, "q", names...)

				var wait sync.WaitGroup
				for range readers {
					wait.Go(func() {
						for {
							taken, left, err := readInOrder(t.Context(), d, strategy, batchSize)
							if err != nil {
								t.Error(err)
								return
							}
							if left == 0 {
								return
							}
							if len(taken) == 0 {
								runtime.Gosched() // others have what is left, and settle it
							}
							if err := settleSome(t.Context(), d, taken); err != nil {
								t.Error(err)
								return
							}
						}
					})
				}
				wait.Wait()
			})
		}
	}
}

// readInOrder reads a batch and fails when something is missing before a message of it. That is looked for
// in the transaction of the read, which keeps what was taken locked.
func readInOrder(ctx context.Context, d *pgmqtest.Database, strategy string, limit int) (taken []int64, left int64, err error) {
	err = pgx.BeginFunc(ctx, d.Pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `select msg_id from pgmq.`+strategy+`('q', 3600, $1::integer)`, limit)
		if err != nil {
			return err
		}
		if taken, err = pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil {
			return err
		}
		var skipped []string
		err = tx.QueryRow(ctx, `
			select
				(select count(*) from pgmq.q_q),
				(
					select coalesce(array_agg(earlier.message #>> '{}'), '{}')
					from pgmq.q_q as m
					join pgmq.q_q as earlier
						on earlier.headers ->> 'x-pgmq-group' = m.headers ->> 'x-pgmq-group'
						and earlier.msg_id < m.msg_id
					where m.msg_id = any ($1::bigint[]) and earlier.msg_id <> all ($1::bigint[])
				)`, taken).Scan(&left, &skipped)
		if err == nil && len(skipped) > 0 {
			err = fmt.Errorf("%s went past %v", strategy, skipped)
		}
		return err
	})
	return taken, left, err
}

// settleSome deletes some of what was taken and gives the rest back, each in a transaction of its own and
// in any order, as handlers do that fail now and then.
func settleSome(ctx context.Context, d *pgmqtest.Database, taken []int64) error {
	rand.Shuffle(len(taken), func(i, j int) { taken[i], taken[j] = taken[j], taken[i] })
	for _, id := range taken {
		statement := `select pgmq.delete('q', $1::bigint)`
		if rand.IntN(3) == 0 {
			statement = `select pgmq.set_vt('q', $1::bigint, 0)`
		}
		if err := try(ctx, d.Pool, statement, id); err != nil {
			return err
		}
	}
	return nil
}

// What a read looks at does not grow with the queue, nor with a group in front that is blocked.
func TestGroupedReadsLookAtFewMessages(t *testing.T) {
	t.Parallel()
	for _, index := range []string{
		`select pgmq.create_fifo_index('q')`,
		`create index q_q_group_idx on pgmq.q_q ((left(coalesce(headers ->> 'x-pgmq-group', ''), 200)) collate "C", msg_id)`,
	} {
		testGroupedReadsLookAtFewMessages(t, index)
	}
}

func testGroupedReadsLookAtFewMessages(t *testing.T, index string) {
	t.Helper()
	d := pgmqtest.New(t)
	exec(t, d.Pool, `select pgmq.create('q')`)
	exec(t, d.Pool, index)
	exec(t, d.Pool, `select pgmq.create_fifo_index('q')`) // there is one
	if indexes := one[int64](t, d.Pool, `select count(*) from pg_index as i where i.indrelid = 'pgmq.q_q'::regclass`); indexes != 3 {
		t.Errorf("%d indexes, want 3", indexes)
	}
	exec(t, d.Pool, `
		select pgmq.send_batch('q', array_agg(to_jsonb(n)), array_agg(jsonb_build_object('x-pgmq-group', g)))
		from (
			select n, case when n <= 10000 then 'blocked' else (n % 100)::text end as g
			from generate_series(1, 30000) as n
			order by n
		) as messages`)

	conn := session(t, d)
	for _, analyzed := range []bool{false, true} {
		if analyzed {
			exec(t, conn, `analyze pgmq.q_q`)
		}
		for state, prepare := range map[string]string{
			"flowing": `select pgmq.set_vt('q', 1, 0)`,
			"blocked": `select pgmq.set_vt('q', 1, 3600)`,
		} {
			exec(t, conn, prepare)
			for _, strategy := range strategies {
				looked := rowsLookedAt(t, conn, "q_q", func(tx pgx.Tx) {
					if got := readNames(t, tx, strategy, "q", 10); len(got) != 10 {
						t.Errorf("%s: %d messages", strategy, len(got))
					}
				})
				if looked > 1000 {
					t.Errorf("%s, %s, analyzed %t: 10 of 30000 messages read by looking at %d", strategy, state, analyzed, looked)
				}
			}
		}
	}
}

func TestGroups(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	exec(t, d.Pool, `select pgmq.create('q'), pgmq.create_fifo_index('q')`)
	long := func(last string) string { return fmt.Sprintf("%0200d", 0) + last }
	headers := []string{
		`null`,
		`{}`,
		`{"x-pgmq-group": null}`,
		`[1]`,
		`{"x-pgmq-group": "a"}`,
		`{"x-pgmq-group": 7}`,
		`{"x-pgmq-group": "7"}`,
		`{"x-pgmq-group": "` + long("x") + `"}`,
		`{"x-pgmq-group": "` + long("y") + `"}`,
		`{"x-pgmq-group": "` + fmt.Sprintf("%05000d", 1) + `"}`,
	}
	for _, h := range headers {
		exec(t, d.Pool, `select pgmq.send('q', '1'::jsonb, $1::text::jsonb)`, h)
	}
	// None of the first four names a group, 7 and "7" name one, and so do the last three.
	want := []int64{1, 5, 6, 8}
	if got := column[int64](t, d.Pool, `select msg_id from pgmq.read_grouped_head('q', 30, 100)`); !slices.Equal(got, want) {
		t.Errorf("heads %v, want %v", got, want)
	}
}
