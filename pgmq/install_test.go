package pgmq_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmq/schema"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// embedded is what Install leaves where nothing was.
func embedded() pgmq.Version {
	n := len(schema.Versions())
	return pgmq.Version{Kind: pgmq.KindEmbedded, Number: n, Name: fmt.Sprint(n)}
}

// install installs our schema, whatever the server offers.
func install(t testing.TB, c *pgmq.Client) {
	t.Helper()
	v, err := c.Install(t.Context(), pgmq.EmbeddedSchema())
	if err != nil || v != embedded() {
		t.Fatalf("Install: %v, %v; want %v", v, err, embedded())
	}
}

// newEmbedded is a database with our schema, whatever the server offers.
func newEmbedded(t testing.TB) *pgmqtest.Database {
	t.Helper()
	d := pgmqtest.NewEmpty(t)
	install(t, pgmq.New(d.Pool))
	return d
}

func TestInstallByManyAtOnce(t *testing.T) {
	t.Parallel()
	d := pgmqtest.NewEmpty(t)
	run(t, d, `alter database `+databaseOf(t, d)+` set default_transaction_isolation = 'serializable'`)
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			pool, err := pgxpool.New(t.Context(), d.DSN) // a process of its own would have one
			if err != nil {
				t.Error(err)
				return
			}
			defer pool.Close()
			if v, err := pgmq.New(pool).Install(t.Context(), pgmq.EmbeddedSchema()); err != nil || v != embedded() {
				t.Errorf("Install: %v, %v; want %v", v, err, embedded())
			}
		})
	}
	wait.Wait()

	var versions []int
	for _, version := range schema.Versions() {
		versions = append(versions, version.Number)
	}
	if applied := ledger(t, d); !slices.Equal(applied, versions) {
		t.Errorf("ledger: versions %v, want %v", applied, versions)
	}
}

func TestInstallOnEveryHandle(t *testing.T) {
	t.Parallel()
	onPool := func(mode pgx.QueryExecMode) func(*testing.T, string) {
		return func(t *testing.T, dsn string) {
			config, err := pgxpool.ParseConfig(dsn)
			if err != nil {
				t.Fatal(err)
			}
			config.ConnConfig.DefaultQueryExecMode = mode
			pool, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			install(t, pgmq.New(pool))
			install(t, pgmq.New(pool))
		}
	}
	handles := map[string]func(t *testing.T, dsn string){
		"pool":                 onPool(pgx.QueryExecModeCacheStatement),
		"pool, cache describe": onPool(pgx.QueryExecModeCacheDescribe),
		"pool, describe":       onPool(pgx.QueryExecModeDescribeExec),
		"pool, exec":           onPool(pgx.QueryExecModeExec),
		"pool, simple":         onPool(pgx.QueryExecModeSimpleProtocol),
		"connection and transaction": func(t *testing.T, dsn string) {
			conn, err := pgx.Connect(t.Context(), dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.WithoutCancel(t.Context()))
			tx, err := conn.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
			if err != nil {
				t.Fatal(err)
			}
			install(t, pgmq.New(tx))
			var path string
			if err := tx.QueryRow(t.Context(), `show search_path`).Scan(&path); err != nil || path != "evil, pg_catalog" {
				t.Errorf("search_path after Install: %s, %v", path, err)
			}
			if _, err := pgmq.New(tx).Send(t.Context(), "q", pgmq.Outgoing{}); !errors.Is(err, pgmq.ErrQueueNotFound) {
				t.Errorf("Send: %v", err)
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := pgmq.New(conn).Send(t.Context(), "q", pgmq.Outgoing{}); !errors.Is(err, pgmq.ErrNotInstalled) {
				t.Errorf("Send after the rollback: %v", err)
			}
			install(t, pgmq.New(conn))
		},
		"database/sql": func(t *testing.T, dsn string) {
			db, err := sql.Open("pgx", dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			install(t, pgmq.NewStd(db))
		},
		"database/sql over a pool": func(t *testing.T, dsn string) {
			pool, err := pgxpool.New(t.Context(), dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			db := stdlib.OpenDBFromPool(pool)
			defer db.Close()
			conn, err := db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			install(t, pgmq.NewStd(conn))
		},
	}
	for name, f := range handles {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := pgmqtest.NewEmpty(t)
			// The strictest level by default, and a search_path that would lead names astray.
			database := databaseOf(t, d)
			run(t, d, `alter database `+database+` set default_transaction_isolation = 'serializable'`)
			run(t, d, `alter database `+database+` set search_path = evil, pg_catalog`)
			run(t, d, `create schema evil`)
			run(t, d, `create function evil.format(text, text) returns text language sql return 'hijacked'`)
			run(t, d, `create function evil.lower(text) returns text language sql return 'hijacked'`)
			f(t, d.DSN)
			run(t, d, `alter database `+database+` reset all`)
			d.Pool.Reset()
			if err := pgmq.New(d.Pool).CreateQueue(t.Context(), "Works"); err != nil {
				t.Error(err)
			}
			if _, err := pgmq.New(d.Pool).Send(t.Context(), "works", pgmq.Outgoing{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// A transaction that has begun above read committed cannot see what another process installs meanwhile.
func TestInstallRefusesAStrictTransaction(t *testing.T) {
	t.Parallel()
	d := pgmqtest.NewEmpty(t)
	err := pgx.BeginTxFunc(t.Context(), d.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		_, err := pgmq.New(tx).Install(t.Context(), pgmq.EmbeddedSchema())
		return err
	})
	var failed *pgmq.Error
	if !errors.As(err, &failed) || failed.Op != "install" {
		t.Errorf("Install: %v", err)
	}
}

// Versions are applied in their order, each in a transaction of its own: what an upgrade reached before it
// failed stays, and the next one goes on from there. Queues and messages are kept.
func TestInstallUpgrades(t *testing.T) {
	t.Parallel()
	d := pgmqtest.NewEmpty(t)
	c := pgmq.New(d.Pool)
	known := schema.Versions()
	install(t, c)
	if err := c.CreateQueue(t.Context(), "q"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Send(t.Context(), "q", pgmq.Outgoing{Body: []byte(`{"kept": true}`)}); err != nil {
		t.Fatal(err)
	}

	next := func(sql string) {
		n := len(known) + 1
		known = append(known, schema.Version{Number: n, SQL: sql, Checksum: fmt.Sprint("checksum of ", n)})
	}
	next(`create table pgmq._steps (step integer); insert into pgmq._steps (step) values (1);`)
	next(`insert into pgmq._steps (step) values (2);`)
	next(`insert into pgmq._steps (step) values (3); insert into pgmq._steps (step) values ('no number');`)
	if _, err := pgmq.InstallVersions(c, t.Context(), known); err == nil {
		t.Fatal("a broken version was applied")
	}
	if applied := ledger(t, d); len(applied) != len(known)-1 {
		t.Errorf("versions after the failure: %v", applied)
	}

	known = known[:len(known)-1]
	next(`insert into pgmq._steps (step) values (3);`)
	next(`insert into pgmq._steps (step) values (4);`)
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			v, err := pgmq.InstallVersions(c, t.Context(), known)
			if want := (pgmq.Version{Kind: pgmq.KindEmbedded, Number: len(known), Name: fmt.Sprint(len(known))}); err != nil || v != want {
				t.Errorf("Install: %v, %v; want %v", v, err, want)
			}
		})
	}
	wait.Wait()
	if steps := values[int](t, d, `select step from pgmq._steps`); !slices.Equal(steps, []int{1, 2, 3, 4}) {
		t.Errorf("steps %v, want each once and in order", steps)
	}
	if kept := values[string](t, d, `select message::text from pgmq.read('q', 0, 10)`); !slices.Equal(kept, []string{`{"kept": true}`}) {
		t.Errorf("messages after the upgrade: %q", kept)
	}

	var newer *pgmq.NewerSchemaError
	_, err := c.Install(t.Context())
	if !errors.As(err, &newer) || newer.Installed != len(known) || newer.Known != len(schema.Versions()) {
		t.Errorf("Install of an older library: %v", err)
	}
}

// What a database may have in a schema named pgmq, and what Install makes of it.
func TestInstallLeavesAlone(t *testing.T) {
	t.Parallel()
	const plainSQL = `
		create schema pgmq;
		create table pgmq.meta (queue_name varchar);
		create function pgmq.send(queue_name text, msg jsonb) returns setof bigint language sql return 1;`
	// Superusers may write the catalog: a row is all that makes an extension known.
	const extension = plainSQL + `
		set allow_system_table_mods = on;
		insert into pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
		values (99999, 'pgmq', 10, 'pgmq'::regnamespace, false, '1.12.0');`
	const ours = `` // Install itself
	var (
		changed *pgmq.ChangedSchemaError
		other   *pgmq.OtherKindError
	)
	tests := map[string]struct {
		prepare string
		options []pgmq.InstallOption
		want    pgmq.Version
		wantErr any // a sentinel, or a pointer for errors.As
	}{
		"extension":            {extension, nil, pgmq.Version{Kind: pgmq.KindExtension, Name: "1.12.0"}, nil},
		"extension, as wanted": {extension, []pgmq.InstallOption{pgmq.Extension()}, pgmq.Version{Kind: pgmq.KindExtension, Name: "1.12.0"}, nil},
		"extension, unwanted":  {extension, []pgmq.InstallOption{pgmq.EmbeddedSchema()}, pgmq.Version{}, &other},
		"plain SQL":            {plainSQL, nil, pgmq.Version{Kind: pgmq.KindForeign}, nil},
		"plain SQL, unwanted":  {plainSQL, []pgmq.InstallOption{pgmq.EmbeddedSchema()}, pgmq.Version{}, &other},
		"ours, unwanted":       {ours, []pgmq.InstallOption{pgmq.Extension()}, pgmq.Version{}, &other},
		"ours, changed":        {ours + `update pgmq._ledger set checksum = 'other'`, nil, pgmq.Version{}, &changed},
		"something else":       {`create schema pgmq; create table pgmq.mine (a integer)`, nil, pgmq.Version{}, pgmq.ErrUnknownSchema},
		"only a type":          {`create schema pgmq; create type pgmq.mine as enum ('a')`, nil, pgmq.Version{}, pgmq.ErrUnknownSchema},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := pgmqtest.NewEmpty(t)
			c := pgmq.New(d.Pool)
			if strings.HasPrefix(name, "ours") {
				install(t, c)
			}
			if err := d.Pool.AcquireFunc(t.Context(), func(conn *pgxpool.Conn) error {
				_, err := conn.Conn().PgConn().Exec(t.Context(), test.prepare).ReadAll()
				return err
			}); err != nil {
				t.Fatal(err)
			}

			before := contents(t, d)
			v, err := c.Install(t.Context(), test.options...)
			switch want := test.wantErr.(type) {
			case nil:
				if err != nil {
					t.Error(err)
				}
			case error:
				if !errors.Is(err, want) {
					t.Errorf("error %v, want %v", err, want)
				}
			default:
				if !errors.As(err, want) {
					t.Errorf("error %v, want a %T", err, want)
				}
			}
			if v != test.want {
				t.Errorf("version %v, want %v", v, test.want)
			}
			if after := contents(t, d); !slices.Equal(after, before) {
				t.Errorf("Install changed the schema from %q to %q", before, after)
			}
		})
	}
}

func TestInstallNamesTheMissingRight(t *testing.T) {
	t.Parallel()
	const ours = `ours`
	tests := map[string]struct {
		prepare string // ROLE and DATABASE are the test's own
		missing string // empty: Install succeeds
	}{
		"nothing":                    {``, "CREATE on database DATABASE"},
		"a schema that is empty":     {`create schema pgmq`, "CREATE on schema pgmq"},
		"may create in the database": {`grant create on database DATABASE to ROLE`, ""},
		"may create in the schema":   {`create schema pgmq; grant create, usage on schema pgmq to ROLE`, ""},
		"owns the schema":            {`create schema pgmq authorization ROLE`, ""},
		"may not use it":             {ours, "USAGE on schema pgmq"},
		"may use it":                 {ours + `; grant usage on schema pgmq to ROLE`, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := pgmqtest.NewEmpty(t)
			role := newRole(t, d)
			database := databaseOf(t, d)
			names := strings.NewReplacer("ROLE", role, "DATABASE", database)
			for statement := range strings.SplitSeq(names.Replace(test.prepare), ";") {
				if statement == ours {
					install(t, pgmq.New(d.Pool))
				} else {
					run(t, d, statement)
				}
			}

			conn, err := pgx.Connect(t.Context(), d.DSN)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.WithoutCancel(t.Context()))
			if _, err := conn.Exec(t.Context(), `set role `+role); err != nil {
				t.Fatal(err)
			}
			v, err := pgmq.New(conn).Install(t.Context(), pgmq.EmbeddedSchema())
			if test.missing == "" {
				if err != nil || v != embedded() {
					t.Errorf("Install: %v, %v", v, err)
				}
				return
			}
			var rights *pgmq.RightsError
			if !errors.As(err, &rights) || !errors.Is(err, pgmq.ErrPermissionDenied) {
				t.Fatalf("Install: %v", err)
			}
			if want := []string{names.Replace(test.missing)}; rights.Role != role || !slices.Equal(rights.Missing, want) {
				t.Errorf("role %s misses %q, want %s and %q", rights.Role, rights.Missing, role, want)
			}
		})
	}
}

// Upgrading replaces what somebody else has created.
func TestUpgradeNamesTheMissingRight(t *testing.T) {
	t.Parallel()
	d := pgmqtest.NewEmpty(t)
	install(t, pgmq.New(d.Pool))
	role := newRole(t, d)
	run(t, d, `grant usage, create on schema pgmq to `+role)
	conn, err := pgx.Connect(t.Context(), d.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), `set role `+role); err != nil {
		t.Fatal(err)
	}
	known := append(schema.Versions(), schema.Version{Number: len(schema.Versions()) + 1})
	_, err = pgmq.InstallVersions(pgmq.New(conn), t.Context(), known)
	var rights *pgmq.RightsError
	owner := values[string](t, d, `select current_user::text`)[0]
	if !errors.As(err, &rights) || !slices.Equal(rights.Missing, []string{"membership in role " + owner}) {
		t.Errorf("Install: %v", err)
	}
}

func TestInstallTheExtensionWhereThereIsNone(t *testing.T) {
	t.Parallel()
	d := pgmqtest.NewEmpty(t)
	if offered := values[string](t, d, `select name::text from pg_available_extensions where name = 'pgmq'`); len(offered) > 0 {
		v, err := pgmq.New(d.Pool).Install(t.Context(), pgmq.Extension())
		if err != nil || v.Kind != pgmq.KindExtension || v.Name == "" {
			t.Errorf("Install: %v, %v", v, err)
		}
		return
	}
	if _, err := pgmq.New(d.Pool).Install(t.Context(), pgmq.Extension()); !errors.Is(err, pgmq.ErrUnsupported) {
		t.Errorf("Install: %v, want ErrUnsupported", err)
	}
	if left := contents(t, d); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func ledger(t testing.TB, d *pgmqtest.Database) []int {
	t.Helper()
	return values[int](t, d, `select version from pgmq._ledger order by version`)
}

// contents lists what is in the schema, with the content of the ledger.
func contents(t testing.TB, d *pgmqtest.Database) []string {
	t.Helper()
	all := values[string](t, d, `
		select format('%s %s %s', classid::regclass, objid, deptype)
		from pg_depend
		where refclassid = 'pg_namespace'::regclass and refobjid = to_regnamespace('pgmq')
		order by 1`)
	if exists := values[bool](t, d, `select to_regclass('pgmq._ledger') is not null`); exists[0] {
		all = append(all, values[string](t, d, `select l::text from pgmq._ledger as l order by l.version`)...)
	}
	return all
}

func values[T any](t testing.TB, d *pgmqtest.Database, sql string) []T {
	t.Helper()
	rows, err := d.Pool.Query(t.Context(), sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return all
}

func databaseOf(t testing.TB, d *pgmqtest.Database) string {
	t.Helper()
	return values[string](t, d, `select current_database()::text`)[0]
}

func run(t testing.TB, d *pgmqtest.Database, sql string) {
	t.Helper()
	if _, err := d.Pool.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// newRole makes a role of the test's own; roles belong to the whole server.
func newRole(t testing.TB, d *pgmqtest.Database) string {
	t.Helper()
	return newNamedRole(t, d, "role_of_"+databaseOf(t, d))
}

func newNamedRole(t testing.TB, d *pgmqtest.Database, name string) string {
	t.Helper()
	quoted := pgx.Identifier{name}.Sanitize()
	run(t, d, `create role `+quoted)
	t.Cleanup(func() {
		for _, statement := range []string{`drop owned by ` + quoted + ` cascade`, `drop role ` + quoted} {
			if _, err := d.Pool.Exec(context.Background(), statement); err != nil {
				t.Error(err)
			}
		}
	})
	return name
}
