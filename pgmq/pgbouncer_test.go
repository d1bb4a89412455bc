package pgmq_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// Behind a PgBouncer in transaction mode everything is as it is without, in the modes that the documentation of
// Client names: each transaction, and each statement outside of one, may meet another server connection.
func TestHandlesBehindPgBouncer(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t)
	bouncer := pgBouncerDSN(t, db)
	for _, mode := range []string{"cache_describe", "exec", "simple_protocol"} {
		dsn := withParameter(bouncer, "default_query_exec_mode", mode)
		testBehaviour(t, db, "pgx", dsn, mode, pgxHandles)
		testBehaviour(t, db, "pgx/stdlib", dsn, mode, stdHandles("pgx"))
	}
	// The other way to send parameters takes lib/pq two round trips.
	testBehaviour(t, db, "lib/pq", withParameter(bouncer, "binary_parameters", "yes"), "binary", stdHandles("postgres"))
}

func TestReaderBehindPgBouncer(t *testing.T) {
	t.Parallel()
	dsn := pgBouncerDSN(t, pgmqtest.New(t))
	for _, mode := range []string{"cache_describe", "exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			testReader(t, withParameter(dsn, "default_query_exec_mode", mode))
		})
	}
}

// A reader wants its statements to be planned anew, in whatever way its connections can do that.
func TestReaderInEveryMode(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t)
	for _, mode := range execModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dsn := withParameter(db.DSN, "default_query_exec_mode", mode)
			testReader(t, dsn)
			if mode != "cache_describe" {
				testReader(t, withParameter(dsn, "description_cache_capacity", "0"))
			}
		})
	}
}

func testReader(t *testing.T, dsn string) {
	t.Helper()
	const n = 300
	f := fixture{Client: pgmq.New(newPool(t, dsn)), queue: newQueueName()}
	f.create(t)
	_, err := f.SendBatch(t.Context(), f.queue, make([]pgmq.Outgoing, n))
	require.NoError(t, err)

	watcher, err := f.NewWatcher(pgmq.WatcherConfig{DisableListen: true, PollInterval: 10 * time.Millisecond})
	require.NoError(t, err)
	defer watcher.Close()
	reader, err := f.NewReader(t.Context(), f.queue, pgmq.ReaderConfig{Watcher: watcher})
	require.NoError(t, err)
	for i := range n {
		lease, err := reader.Next(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, i+1, lease.ID)
		lease.Ack()
	}
	require.NoError(t, reader.Close(t.Context()))
	left, err := f.Purge(t.Context(), f.queue)
	require.NoError(t, err)
	require.Zero(t, left)
}

// pgBouncerConfig: a client meets the server connections in turn.
const pgBouncerConfig = `
[databases]
* = host=%s port=%d

[pgbouncer]
pool_mode = transaction
server_round_robin = 1
min_pool_size = 3
default_pool_size = 20
max_client_conn = 1000
auth_type = trust
auth_file = %[3]s/users
ignore_startup_parameters = extra_float_digits
listen_addr =
listen_port = 6432
unix_socket_dir = %[3]s
`

// pgBouncerDSN is the connection string of a database behind a PgBouncer of its own.
func pgBouncerDSN(t *testing.T, db *pgmqtest.Database) string {
	t.Helper()
	c := db.Pool.Config().ConnConfig
	dsn := url.URL{
		Scheme: "postgres", User: url.UserPassword(c.User, c.Password), Path: "/" + c.Database,
		RawQuery: url.Values{"host": {startPgBouncer(t, db)}, "port": {"6432"}, "sslmode": {"disable"}}.Encode(),
	}
	return dsn.String()
}

// startPgBouncer puts a PgBouncer in front of a database's server, with more settings than above if wanted, and
// returns the directory of its socket. It ends with the test, or with the process that runs it.
func startPgBouncer(t *testing.T, db *pgmqtest.Database, settings ...string) string {
	t.Helper()
	program, err := findPgBouncer()
	require.NoError(t, err)

	// A socket's path has to be short, which that of t.TempDir is not.
	dir, err := os.MkdirTemp("", "pgbouncer") //nolint:usetesting // for that reason
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	server := db.Pool.Config().ConnConfig
	for name, content := range map[string]string{
		"config": fmt.Sprintf(pgBouncerConfig, server.Host, server.Port, dir) + strings.Join(settings, "\n"),
		"users":  fmt.Sprintf("%q %q\n", server.User, server.Password),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	arguments := []string{filepath.Join(dir, "config")}
	if os.Geteuid() == 0 { // as whom it refuses to run
		const account = "postgres"
		arguments = append([]string{"-u", account}, arguments...)
		output, err := exec.CommandContext(t.Context(), "chown", "-R", account, dir).CombinedOutput()
		require.NoError(t, err, string(output))
	}
	runPgBouncer(t, dir, program, arguments)
	return dir
}

func findPgBouncer() (string, error) {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer", "/opt/homebrew/bin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("this test needs PgBouncer: apt-get install pgbouncer, or brew install pgbouncer")
}

// runPgBouncer returns when it accepts connections.
func runPgBouncer(t *testing.T, dir, program string, arguments []string) {
	t.Helper()
	// Beside it a process waits for the end of this one, whatever that is, and tidies up.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "sh", append([]string{
		"-c", `dir=$1; shift; exec 3<&0; { cat <&3; kill $$; rm -rf "$dir"; } >/dev/null 2>&1 & exec "$@" 3<&-`, "sh", dir, program,
	}, arguments...)...)
	life, err := cmd.StdinPipe()
	require.NoError(t, err)
	log, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())

	up, read := make(chan struct{}), make(chan struct{})
	var lines []string // until it is up
	go func() {
		defer close(read)
		scanner := bufio.NewScanner(log)
		for isUp := false; scanner.Scan(); {
			if isUp {
				continue
			}
			lines = append(lines, scanner.Text())
			if isUp = strings.Contains(scanner.Text(), "process up"); isUp {
				close(up)
			}
		}
	}()
	t.Cleanup(func() {
		life.Close()
		<-read
		_ = cmd.Wait() // ended by a signal
	})
	select {
	case <-up:
	case <-read:
		t.Fatalf("PgBouncer has not started: %s", strings.Join(lines, "\n"))
	}
}

// Without this the tests above would prove nothing.
func TestPgBouncerMixesConnections(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), withParameter(pgBouncerDSN(t, pgmqtest.New(t)), "default_query_exec_mode", "exec"))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	// Two at a time need two connections of the server.
	one, err := pool.Begin(t.Context())
	require.NoError(t, err)
	other, err := pool.Begin(t.Context())
	require.NoError(t, err)
	require.NoError(t, one.Rollback(t.Context()))
	require.NoError(t, other.Rollback(t.Context()))

	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	met := map[int]bool{}
	for range 10 {
		var pid int
		require.NoError(t, conn.QueryRow(t.Context(), `select pg_backend_pid()`).Scan(&pid))
		met[pid] = true
	}
	require.Greater(t, len(met), 1)
}
