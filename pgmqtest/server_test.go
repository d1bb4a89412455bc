package pgmqtest_test

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// TestServerLifecycle stops and starts a server in every way. Its address stays, and what was committed.
func TestServerLifecycle(t *testing.T) {
	t.Parallel()
	server := pgmqtest.StartServer(t)
	db := server.Database(t)
	ctx := t.Context()
	if _, err := db.Pool.Exec(ctx, `create table steps (name text)`); err != nil {
		t.Fatal(err)
	}

	step := func(name string, do func(context.Context) error, wantRunning bool) {
		t.Helper()
		if err := do(ctx); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		conn, err := pgx.Connect(ctx, db.DSN)
		if !wantRunning {
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Fatalf("%s: got error %v, want that the connection is refused", name, err)
			}
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := conn.Exec(ctx, `insert into steps (name) values ($1::text)`, name); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		// The connection is left to whatever comes next.
	}
	step("start a running server", server.Start, true)
	step("stop", server.Stop, false)
	step("stop a stopped server", server.Stop, false)
	step("start", server.Start, true)
	step("kill", server.Kill, false)
	step("start after a crash", server.Start, true)
	step("restart", server.Restart, true)
	step("restart from outside", func(ctx context.Context) error {
		command := server.RestartCommand()
		output, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
		if len(output) > 0 {
			return errors.Join(err, errors.New(string(output)))
		}
		return err
	}, true)

	conn, err := pgx.Connect(ctx, db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	var count int
	if err := conn.QueryRow(ctx, `select count(*) from steps`).Scan(&count); err != nil || count != 5 {
		t.Errorf("%d rows, %v; want those of 5 steps", count, err)
	}
	step("stop, for good", server.Stop, false)
	if _, _, err := server.CreateDatabase(ctx); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("database on a stopped server: got error %v, want that the connection is refused", err)
	}
}

// TestServerDies kills the server behind its owner's back. The next test does not suffer from it.
func TestServerDies(t *testing.T) {
	t.Parallel()
	server := pgmqtest.StartServer(t)
	conn, err := pgx.Connect(t.Context(), server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	processes, err := serverProcesses(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(processes[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// The connection ends with the server.
	if err := conn.Ping(t.Context()); err == nil {
		_, err = conn.Exec(t.Context(), `select pg_sleep(60)`)
		if err == nil {
			t.Fatal("the server was to die")
		}
	}
	if err := server.Database(t).Pool.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestStartOnTakenPort: somebody else took the port of a stopped server. The error says so, and how it
// looked to Postgres.
func TestStartOnTakenPort(t *testing.T) {
	t.Parallel()
	server := pgmqtest.StartServer(t)
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	config, err := pgx.ParseConfig(server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(config.Port)})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "Address already in use") {
		t.Errorf("got error %v, want one about the address", err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestContextEnds: nothing is done for a caller who gave up.
func TestContextEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := pgmqtest.Start(ctx, pgmqtest.Durable()); !errors.Is(err, context.Canceled) {
		t.Errorf("Start: got error %v, want %v", err, context.Canceled)
	}
	server := pgmqtest.StartServer(t)
	for name, do := range map[string]func(context.Context) error{
		"Stop": server.Stop, "Kill": server.Kill, "Start": server.Start, "Restart": server.Restart,
		"CreateDatabase": func(ctx context.Context) error {
			_, _, err := server.CreateDatabase(ctx)
			return err
		},
	} {
		if err := do(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got error %v, want %v", name, err, context.Canceled)
		}
	}
	var name string
	t.Run("the server serves on", func(t *testing.T) {
		name = server.Database(t).Pool.Config().ConnConfig.Database
	})
	if databaseExists(t, server, name) {
		t.Errorf("database %q is still there: the server was taken for stopped", name)
	}
}

// TestClose removes the server. It may be called again.
func TestClose(t *testing.T) {
	t.Parallel()
	pool, stop, err := pgmqtest.Connect(t.Context(), pgmqtest.Setting("application_name", "unimportant"))
	if err != nil {
		t.Fatal(err)
	}
	if err := pool.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	dsn := pool.Config().ConnString()
	for range 2 {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
	if _, err := pgx.Connect(t.Context(), dsn); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got error %v, want that the connection is refused", err)
	}
}
