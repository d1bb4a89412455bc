package pgmqtest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// A child is a process of its own: this test binary, started in a role.

// deaths are the roles that start a server, report it, and end in a way that runs no clean-up.
var deaths = map[string]func(*os.Process) error{
	"panic":   nil, // by themselves
	"os.Exit": nil,
	"wait":    (*os.Process).Kill,
	"wait for an interrupt": func(p *os.Process) error {
		return p.Signal(os.Interrupt)
	},
}

// report is what a child says of its server.
type report struct {
	DSN       string
	Directory string
	Processes []int
}

func child(role string) int {
	ctx := context.Background()
	if err := errors.Join(childReport(ctx)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	switch role {
	case "os.Exit":
		os.Exit(3)
	case "panic":
		panic("as a test would")
	}
	// Whoever waits for input that never comes is killed.
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	return 0
}

// childReport starts a server and prints what has to be gone afterwards.
func childReport(ctx context.Context) error {
	server, err := pgmqtest.Start(ctx)
	if err != nil {
		return err
	}
	dsn, _, err := server.CreateDatabase(ctx)
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	r := report{DSN: dsn}
	if err := conn.QueryRow(ctx, `select current_setting('data_directory')`).Scan(&r.Directory); err != nil {
		return err
	}
	r.Directory = strings.TrimSuffix(r.Directory, "/data")
	rows, err := conn.Query(ctx, `
		select a.pid
		from pg_catalog.pg_stat_activity as a
		union
		select (regexp_split_to_array(pg_read_file('postmaster.pid'), E'\n'))[1]::integer`)
	if err != nil {
		return err
	}
	if r.Processes, err = pgx.CollectRows(rows, pgx.RowTo[int]); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// TestDeath kills processes that have a server. Neither a process of it nor a file may stay.
func TestDeath(t *testing.T) {
	t.Parallel()
	for role, kill := range deaths {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			process := startChild(t, role)
			var r report
			if err := json.NewDecoder(process.output).Decode(&r); err != nil {
				t.Fatalf("%v; %s", err, process.stderr)
			}
			if _, err := os.Stat(r.Directory); err != nil || len(r.Processes) < 5 {
				t.Fatalf("%+v: %v", r, err)
			}
			if kill != nil {
				if err := kill(process.Process); err != nil {
					t.Fatal(err)
				}
			}
			if err := process.Wait(); err == nil {
				t.Error("the process was to die of it")
			}
			eventually(t, func() error {
				if _, err := os.Stat(r.Directory); !errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("directory %s: %w", r.Directory, errors.Join(errors.New("is still there"), err))
				}
				for _, pid := range r.Processes {
					if !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
						return fmt.Errorf("process %d is still there", pid)
					}
				}
				return nil
			})
		})
	}
}

// TestDeathWhilePaused: a server that no longer obeys is killed.
func TestDeathWhilePaused(t *testing.T) {
	t.Parallel()
}

type childProcess struct {
	*exec.Cmd
	output *bufio.Reader
	stderr *strings.Builder
}

// startChild starts a process in a role, without the test's environment of servers.
func startChild(t *testing.T, role string, environment ...string) *childProcess {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "DATABASE_URL=") || strings.HasPrefix(variable, "PGMQ_TEST_DSN=")
	}), append(environment, "PGMQTEST_CHILD="+role)...)
	stdin, err := cmd.StdinPipe() // open as long as this process lives
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close() })
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr := new(strings.Builder)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &childProcess{cmd, bufio.NewReader(stdout), stderr}
}

// eventually waits until check is content. It looks again and again: a process that is not our child gives
// no signal when it ends.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-tick.C:
		}
	}
}
