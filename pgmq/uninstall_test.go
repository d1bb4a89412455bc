package pgmq_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// Everything goes, and it is said what that was; nothing else does. Then it can be installed again.
func TestUninstall(t *testing.T) {
	t.Parallel()
	d := newEmbedded(t)
	c := pgmq.New(d.Pool)
	fill(t, d)
	run(t, d, `create table public.mine (msg_id bigint); insert into public.mine values (1)`)
	got, err := c.Uninstall(t.Context(), databaseOf(t, d))
	if err != nil || got.Version != embedded() {
		t.Fatalf("Uninstall: %v, %v", got, err)
	}
	got.Queues = slices.DeleteFunc(got.Queues, func(q pgmq.DroppedQueue) bool { return q.Name == "parts" || q.Name == "converted" })
	want := []pgmq.DroppedQueue{
		{Name: "Billing", Messages: 2},
		{Name: strings.Repeat("n", pgmq.MaxQueueName), Messages: 2},
		{Name: `of "ours"`, Messages: 2},
		{Name: "orders", Messages: 4, Archived: 1},
		{Name: "quick", Messages: 2},
	}
	if !slices.Equal(got.Queues, want) {
		t.Errorf("dropped %+v, want %+v", got.Queues, want)
	}
	if left := values[bool](t, d, `select to_regnamespace('pgmq') is not null`); left[0] {
		t.Errorf("left: %q", contents(t, d))
	}
	if mine := values[int](t, d, `select msg_id::int from public.mine`); len(mine) != 1 {
		t.Error("what is not in the schema went, too")
	}
	for _, books := range values[string](t, d, `select format('%I.part_config', n.nspname)
		from pg_extension as e join pg_namespace as n on n.oid = e.extnamespace where e.extname = 'pg_partman'`) {
		if parents := values[string](t, d, `select parent_table from `+books); len(parents) > 0 {
			t.Errorf("pg_partman still has %q", parents)
		}
	}
	if _, err := c.Uninstall(t.Context(), databaseOf(t, d)); !errors.Is(err, pgmq.ErrNotInstalled) {
		t.Errorf("Uninstall again: %v", err)
	}
	if _, err := c.Version(t.Context()); !errors.Is(err, pgmq.ErrNotInstalled) {
		t.Errorf("Version: %v", err)
	}
	install(t, c)
	newQueue(t, c, "orders", `1`)
}

// An old archive counts for its queue, unless it is the archive of another one.
func TestUninstallCountsArchives(t *testing.T) {
	t.Parallel()
	d := newEmbedded(t)
	c := pgmq.New(d.Pool)
	newQueue(t, c, "a", `1`, `2`)
	newQueue(t, c, "b", `1`, `2`, `3`)
	newQueue(t, c, "b_old", `1`, `2`, `3`)
	for _, queue := range []string{"a", "b_old"} {
		_, err := c.Archive(t.Context(), queue, 1, 2)
		must(t, err)
	}
	run(t, d, `create table pgmq.a_a_old (like pgmq.a_a)`)
	run(t, d, `insert into pgmq.a_a_old select * from pgmq.a_a`)
	got, err := c.Uninstall(t.Context(), databaseOf(t, d))
	want := []pgmq.DroppedQueue{{Name: "a", Archived: 4}, {Name: "b", Messages: 3}, {Name: "b_old", Messages: 1, Archived: 2}}
	if err != nil || !slices.Equal(got.Queues, want) {
		t.Errorf("dropped %+v, %v; want %+v", got.Queues, err, want)
	}
}

// What it refuses, and that nothing is done then.
func TestUninstallRefuses(t *testing.T) {
	t.Parallel()
	var (
		consent *pgmq.ConsentError
		inUse   *pgmq.InUseError
		other   *pgmq.OtherKindError
	)
	const ours = `ours`
	tests := map[string]struct {
		prepare  string
		database string // empty: the right one
		want     any    // a sentinel, or a pointer for errors.As
		says     string
	}{
		"another name":    {ours, "production", &consent, `"production" was given`},
		"no name":         {ours, " ", &consent, `the database is "pgmqtest_`},
		"nothing there":   {``, "", pgmq.ErrNotInstalled, ``},
		"something else":  {`create schema pgmq; create table pgmq.mine (a integer)`, "", pgmq.ErrUnknownSchema, ``},
		"plain SQL":       {ours + `; drop table pgmq._ledger`, "", &other, `"foreign"`},
		"a view":          {ours + `; create view public.waiting as select msg_id from pgmq.q_orders`, "", &inUse, `rule _RETURN on view waiting`},
		"a view on a row": {ours + `; create view public.waiting as select queue_name from pgmq.list_queues()`, "", &inUse, `view waiting`},
		"a foreign key":   {ours + `; create table public.mine (queue varchar references pgmq.meta (queue_name))`, "", &inUse, `mine`},
		"a column":        {ours + `; create table public.mine (message pgmq.message_record)`, "", &inUse, `column message of table mine`},
		"a function":      {ours + `; create function public.mine() returns setof pgmq.message_record language plpgsql as 'begin end'`, "", &inUse, `function mine()`},
		"an index":        {ours + `; create table public.mine (a text); create index on public.mine (pgmq.format_table_name(a, 'q'))`, "", &inUse, `mine_format_table_name_idx`},
		"a trigger":       {ours + `; create table public.mine (); create trigger t after insert on public.mine execute function pgmq.notify_queue_listeners('q')`, "", &inUse, `trigger t on table mine`},
		"rights of others": {
			ours + `; alter table pgmq.q_orders owner to pg_read_server_files; set role pg_monitor`, "", pgmq.ErrPermissionDenied,
			`membership in role pg_read_server_files`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := pgmqtest.NewEmpty(t)
			conn, err := pgx.Connect(t.Context(), d.DSN)
			must(t, err)
			defer conn.Close(context.WithoutCancel(t.Context()))
			for statement := range strings.SplitSeq(test.prepare, ";") {
				if statement == ours {
					install(t, pgmq.New(d.Pool))
					newQueue(t, pgmq.New(d.Pool), "orders", `1`)
					continue
				}
				_, err := conn.Exec(t.Context(), statement)
				must(t, err)
			}
			database := test.database
			if database == "" {
				database = databaseOf(t, d)
			}
			before := contents(t, d)
			got, err := pgmq.New(conn).Uninstall(t.Context(), database)
			var failed *pgmq.Error
			if !errors.As(err, &failed) || failed.Op != "uninstall" || len(got.Queues) > 0 {
				t.Errorf("Uninstall: %v, %v", got, err)
			}
			if sentinel, ok := test.want.(error); ok && !errors.Is(err, sentinel) || !ok && !errors.As(err, test.want) {
				t.Errorf("error %v, want %T", err, test.want)
			}
			if err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %v does not say %s", err, test.says)
			}
			if after := contents(t, d); !slices.Equal(after, before) {
				t.Errorf("changed: %q", after)
			}
		})
	}
}

// A caller's transaction may take it back.
func TestUninstallInATransaction(t *testing.T) {
	t.Parallel()
	d := newEmbedded(t)
	fill(t, d)
	before, had := catalog(t, d), data(t, d)
	tx, err := d.Pool.Begin(t.Context())
	must(t, err)
	_, err = pgmq.New(tx).Uninstall(t.Context(), databaseOf(t, d))
	must(t, err)
	must(t, tx.Rollback(t.Context()))
	requireCatalog(t, d, before)
	requireKept(t, had, data(t, d))
}
