package pgmqtest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// report is what a child process says of its server: what has to be gone when the child is.
type report struct {
	DSN       string
	Directory string
	Processes []int
}

// roles are what a child does once it has a server and has reported it. None of them tidies up.
var roles = map[string]func(report) error{
	"panic":   func(report) error { panic("as a test would") },
	"os.Exit": func(report) error { os.Exit(3); return nil },
	"wait":    func(report) error { return waitForever() },
	"pause the server and wait": func(r report) error {
		for _, pid := range r.Processes {
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				return err
			}
		}
		return waitForever()
	},
}

// TestDeath has processes die that have a server. No process of it and no file may stay.
func TestDeath(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		role   string
		signal syscall.Signal // 0: it dies by itself
	}{
		"by panic":                      {"panic", 0},
		"by os.Exit":                    {"os.Exit", 0},
		"by interrupt":                  {"wait", syscall.SIGINT},
		"by SIGKILL":                    {"wait", syscall.SIGKILL},
		"by SIGKILL, the server paused": {"pause the server and wait", syscall.SIGKILL},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			process := startChild(t, test.role)
			r := process.report(t)
			if _, err := os.Stat(r.Directory); err != nil || len(r.Processes) < 5 {
				t.Fatalf("report %+v: %v", r, err)
			}
			if test.signal != 0 {
				// The whole group gets it, as when it is typed at the terminal.
				if err := syscall.Kill(-process.cmd.Process.Pid, test.signal); err != nil {
					t.Fatal(err)
				}
			}
			if err := process.cmd.Wait(); err == nil {
				t.Error("the process was to die of it")
			}
			eventually(t, r.isGone)
		})
	}
}

// TestDeathWhileStarting kills processes whose server is half there.
func TestDeathWhileStarting(t *testing.T) {
	t.Parallel()
	for _, sign := range []string{
		"",                     // at once
		"/data",                // initdb has begun
		"/data/base/1",         // initdb fills the first database
		"/log",                 // Postgres is being started
		"/data/postmaster.pid", // Postgres starts
	} {
		t.Run(sign, func(t *testing.T) {
			t.Parallel()
			directory := t.TempDir()
			// The server's user may be another one than this test's.
			if err := errors.Join(os.Chmod(directory, 0o1777), os.Chmod(filepath.Dir(directory), 0o711)); err != nil {
				t.Fatal(err)
			}
			process := startChild(t, "wait", "TMPDIR="+directory)
			eventually(t, func() error {
				matches, err := filepath.Glob(filepath.Join(directory, "pgmqtest.*", sign))
				if len(matches) == 0 {
					return errors.Join(fmt.Errorf("no %q in the directory of the server", sign), err)
				}
				return nil
			})
			if err := process.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := process.cmd.Wait(); err == nil {
				t.Error("the process was to die of it")
			}
			eventually(t, func() error {
				entries, err := os.ReadDir(directory)
				if len(entries) > 0 {
					return fmt.Errorf("%s is still there", entries[0].Name())
				}
				return err
			})
		})
	}
}

// child is the main of a child process.
func child(role string) int {
	r, err := newReport(context.Background())
	if err == nil {
		err = errors.Join(json.NewEncoder(os.Stdout).Encode(r), roles[role](r))
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// newReport starts a server, with a connection to a database of it.
func newReport(ctx context.Context) (r report, err error) {
	server, err := pgmqtest.Start(ctx)
	if err != nil {
		return r, err
	}
	dsn, _, err := server.CreateDatabase(ctx)
	if err != nil {
		return r, err
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return r, err
	}
	r.DSN = server.DSN()
	if err := conn.QueryRow(ctx, `select current_setting('data_directory')`).Scan(&r.Directory); err != nil {
		return r, err
	}
	r.Directory = strings.TrimSuffix(r.Directory, "/data")
	r.Processes, err = serverProcesses(ctx, conn)
	return r, err
}

// serverProcesses are the process ids of a server, the first one's first.
func serverProcesses(ctx context.Context, conn *pgx.Conn) ([]int, error) {
	rows, err := conn.Query(ctx, `
		select split_part(pg_catalog.pg_read_file('postmaster.pid'), e'\n', 1)::integer as pid, 0 as turn
		union all
		select a.pid, 1 from pg_catalog.pg_stat_activity as a
		order by turn`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (pid int, err error) {
		return pid, row.Scan(&pid, nil)
	})
}

func (r report) isGone() error {
	if _, err := os.Stat(r.Directory); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("directory %s is still there", r.Directory), err)
	}
	for _, pid := range r.Processes {
		if !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return fmt.Errorf("process %d is still there", pid)
		}
	}
	return nil
}

// waitForever waits for input, which the parent never sends.
func waitForever() error {
	_, err := io.ReadAll(os.Stdin)
	return err
}

// A childProcess is this test binary, started in a role.
type childProcess struct {
	cmd    *exec.Cmd
	output *bufio.Reader
	stderr *strings.Builder
}

func startChild(t *testing.T, role string, environment ...string) *childProcess {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = childEnvironment(append(environment, "PGMQTEST_CHILD="+role)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}

	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close() }) // closed already when the test waited for the process
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

// childEnvironment is ours without the servers that this test is told to use, and with what is given here.
func childEnvironment(more ...string) []string {
	environment := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "DATABASE_URL=") || strings.HasPrefix(variable, "PGMQ_TEST_DSN=")
	})
	return append(environment, more...)
}

func (p *childProcess) report(t *testing.T) (r report) {
	t.Helper()
	if err := json.NewDecoder(p.output).Decode(&r); err != nil {
		t.Fatal(errors.Join(err, p.cmd.Wait()), p.stderr)
	}
	return r
}

// eventually waits until check is content. It looks again and again, since a process that is not our child
// gives no signal when it ends.
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
