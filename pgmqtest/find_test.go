package pgmqtest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// TestGivenServer runs tests of this package, in several processes at once, on one server named by
// PGMQ_TEST_DSN. They share a template and leave nothing else; the server goes on.
func TestGivenServer(t *testing.T) {
	t.Parallel()
	server := pgmqtest.StartServer(t)
	config, err := pgx.ParseConfig(server.DSN())
	if err != nil {
		t.Fatal(err)
	}

	var group sync.WaitGroup
	for _, dsn := range []string{server.DSN(), keywords(config), server.DSN()} {
		for _, test := range []string{"^TestNew$", "^TestStartOnGivenServer$"} {
			group.Go(func() {
				cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.count=2", "-test.run", test)
				cmd.Env = childEnvironment("PGMQ_TEST_DSN=" + dsn)
				if output, err := cmd.CombinedOutput(); err != nil || !containsAll(string(output), "PASS: ") {
					t.Errorf("%s on %q: %v\n%s", test, dsn, err, output)
				}
			})
		}
	}
	group.Wait()

	conn, err := pgx.Connect(t.Context(), server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), `
		select d.datname
		from pg_catalog.pg_database as d
		where d.datname like 'pgmqtest\_%'`)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(names) != 1 || !strings.HasPrefix(names[0], "pgmqtest_template_") {
		t.Errorf("left over: %q, %v; want one template", names, err)
	}
}

// TestStartOnGivenServer is about the server named by PGMQ_TEST_DSN where there is one; a server started
// here otherwise serves programs as well.
func TestStartOnGivenServer(t *testing.T) {
	t.Parallel()
	server, err := pgmqtest.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after its databases are gone
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	db := server.Database(t)
	var found bool
	err = db.Pool.QueryRow(t.Context(), `select to_regprocedure('pgmq.send(text, jsonb)') is not null`).Scan(&found)
	if err != nil || !found {
		t.Errorf("PGMQ is there: %t, %v", found, err)
	}
	if os.Getenv("PGMQ_TEST_DSN") == "" {
		return
	}
	if server.DSN() == os.Getenv("PGMQ_TEST_DSN") {
		t.Error("a program was given the maintenance database itself")
	}
	for name, do := range map[string]func(context.Context) error{
		"Stop": server.Stop, "Kill": server.Kill, "Start": server.Start, "Restart": server.Restart,
	} {
		if err := do(t.Context()); !errors.Is(err, pgmqtest.ErrGivenServer) {
			t.Errorf("%s: got error %v, want %v", name, err, pgmqtest.ErrGivenServer)
		}
	}
	if command := server.RestartCommand(); command != nil {
		t.Errorf("RestartCommand: got %q, want none", command)
	}
}

// TestDatabaseURL: a program uses the database it is told to use.
func TestDatabaseURL(t *testing.T) {
	t.Parallel()
	db := pgmqtest.NewEmpty(t)
	process := startChild(t, "os.Exit", "DATABASE_URL="+db.DSN, "PGMQ_TEST_DSN=unused")
	if r := process.report(t); r.DSN != db.DSN {
		t.Errorf("used %q, want %q", r.DSN, db.DSN)
	}
	_ = process.cmd.Wait() // exits with a status of its own
	if err := db.Pool.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestNoServer: where there is nothing, the error says what to do.
func TestNoServer(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		environment []string
		want        []string
	}{
		"no Postgres, no Docker": {
			[]string{"PGMQ_TEST_BINDIR=none", "DOCKER_HOST=unix:///nowhere/docker.sock"},
			[]string{"PGMQ_TEST_DSN", "install Postgres", "start Docker"},
		},
		"wrong directory": {
			[]string{"PGMQ_TEST_BINDIR=/nowhere"},
			[]string{"PGMQ_TEST_BINDIR", `"/nowhere"`, "initdb, pg_ctl and postgres"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			process := startChild(t, "os.Exit", test.environment...)
			err := process.cmd.Wait()
			var status *exec.ExitError
			if !errors.As(err, &status) || status.ExitCode() != 1 || !containsAll(process.stderr.String(), test.want...) {
				t.Errorf("%v: %s; want %q", err, process.stderr, test.want)
			}
		})
	}
}

// TestImage: docker-compose.yml decides which image is used.
func TestImage(t *testing.T) {
	t.Parallel()
	compose, err := os.ReadFile("../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	if !containsAll(string(compose), "image: "+pgmqtest.Image+"\n") {
		t.Errorf("docker-compose.yml does not use %s", pgmqtest.Image)
	}
}

// keywords is a connection string of the other form.
func keywords(config *pgx.ConnConfig) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable", config.Host, config.Port, config.User, config.Database)
}
