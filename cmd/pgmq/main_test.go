package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmq/schema"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// program is the built command.
var program string

func TestMain(m *testing.M) {
	directory, err := os.MkdirTemp("", "pgmq")
	if err == nil {
		program = filepath.Join(directory, "pgmq")
		var output []byte
		if output, err = exec.CommandContext(context.Background(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, output)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		if err := os.RemoveAll(directory); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
		os.Exit(status)
	}))
}

// newest is what install leaves.
var newest = fmt.Sprintf("embedded %d", len(schema.Versions()))

func TestInstallAndUninstall(t *testing.T) {
	t.Parallel()
	d := pgmqtest.NewEmpty(t)
	name := d.Pool.Config().ConnConfig.Database
	pgmqRuns(t, d.DSN, 3, "", "PGMQ is not installed", "version")
	for range 2 {
		pgmqRuns(t, d.DSN, 0, "The database has PGMQ: "+newest+"\n", "", "install", "--embedded")
	}
	pgmqRuns(t, d.DSN, 0, "database  "+newest+"\n", "", "version")
	pgmqRuns(t, "", 0, "database  "+newest+"\n", "", "version", "--dsn", d.DSN)
	pgmqRuns(t, d.DSN, 1, "", `is of kind "embedded"`, "install", "--extension")

	c := pgmq.New(d.Pool)
	if err := c.CreateQueue(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Send(t.Context(), "orders", pgmq.Outgoing{}); err != nil {
		t.Fatal(err)
	}
	pgmqRuns(t, d.DSN, 2, "", "--database NAME", "uninstall")
	pgmqRuns(t, d.DSN, 1, "", `"shop" was given`, "uninstall", "--database", "shop")
	if n, err := c.Metrics(t.Context(), "orders"); err != nil || n.Length != 1 {
		t.Errorf("after what was refused: %v, %v", n, err)
	}
	output := pgmqRuns(t, d.DSN, 0, "Dropped PGMQ: "+newest+", 1 queues\n", "", "uninstall", "--database", name)
	if !strings.Contains(output, "orders") || !strings.Contains(output, "1 messages, 0 archived") {
		t.Errorf("uninstall says %q", output)
	}
	pgmqRuns(t, d.DSN, 1, "", "PGMQ is not installed", "uninstall", "--database", name)
}

// The printed SQL, run by psql or by any client, is an installation that Install knows as its own.
func TestPrint(t *testing.T) {
	t.Parallel()
	script := pgmqRuns(t, "postgres://nobody@127.0.0.1:1/nowhere", 0, "-- Schema pgmq, version 1", "", "install", "--print")
	run := map[string]func(t *testing.T, dsn string) error{
		"simple protocol": func(t *testing.T, dsn string) error {
			conn, err := pgx.Connect(t.Context(), dsn)
			if err != nil {
				return err
			}
			_, err = conn.PgConn().Exec(t.Context(), script).ReadAll()
			return errors.Join(err, conn.Close(t.Context()))
		},
		"in a transaction": func(t *testing.T, dsn string) error {
			conn, err := pgx.Connect(t.Context(), dsn)
			if err != nil {
				return err
			}
			_, err = conn.PgConn().Exec(t.Context(), "begin; set local search_path = evil, public;"+script+"commit").ReadAll()
			return errors.Join(err, conn.Close(t.Context()))
		},
	}
	if psql := findPsql(t); psql != "" {
		run["psql"] = func(t *testing.T, dsn string) error {
			cmd := exec.CommandContext(t.Context(), psql, "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--file", "-", dsn)
			cmd.Stdin = strings.NewReader(script)
			if output, err := cmd.CombinedOutput(); err != nil || len(output) > 0 {
				return fmt.Errorf("%w: %s", err, output)
			}
			return nil
		}
	}
	for name, run := range run {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := pgmqtest.NewEmpty(t)
			if err := run(t, d.DSN); err != nil {
				t.Fatal(err)
			}
			var before, after string
			const ledger = `select string_agg(l::text, '; ') from pgmq._ledger as l`
			if err := d.Pool.QueryRow(t.Context(), ledger).Scan(&before); err != nil {
				t.Fatal(err)
			}
			pgmqRuns(t, d.DSN, 0, "database  "+newest+"\n", "", "version")
			pgmqRuns(t, d.DSN, 0, "The database has PGMQ: "+newest+"\n", "", "install", "--embedded")
			if err := d.Pool.QueryRow(t.Context(), ledger).Scan(&after); err != nil || after != before {
				t.Errorf("ledger: %s, %v; it was %s", after, err, before)
			}
			c := pgmq.New(d.Pool)
			if err := c.CreateQueue(t.Context(), "orders"); err != nil {
				t.Fatal(err)
			}
			if id, err := c.Send(t.Context(), "orders", pgmq.Outgoing{}); err != nil || id != 1 {
				t.Errorf("Send: %d, %v", id, err)
			}
			if err := run(t, d.DSN); err == nil {
				t.Error("it runs twice")
			}
			if err := d.Pool.QueryRow(t.Context(), ledger).Scan(&after); err != nil || after != before {
				t.Errorf("ledger after the second run: %s, %v; it was %s", after, err, before)
			}
		})
	}
}

// findPsql returns "" where there is none: the programs of a server do not always include it.
func findPsql(t *testing.T) string {
	t.Helper()
	if psql, err := exec.LookPath("psql"); err == nil {
		return psql
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/psql")
	if err != nil {
		t.Fatal(err)
	}
	return append(found, "")[0]
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	const nowhere = "postgres://app:geheim@127.0.0.1:1/nowhere?connect_timeout=5"
	tests := map[string]struct {
		status           int
		output, messages string
		args             []string
	}{
		"nothing":           {2, "", "Usage: pgmq COMMAND", nil},
		"help":              {0, "Usage: pgmq COMMAND", "", []string{"help"}},
		"help of a command": {0, "", "-embedded", []string{"install", "--help"}},
		"unknown command":   {2, "", `there is no command "instal"`, []string{"instal"}},
		"unknown flag":      {2, "", "flag provided but not defined: -force", []string{"uninstall", "--force"}},
		"stray argument":    {2, "", `"shop" is not a flag`, []string{"uninstall", "shop"}},
		"both kinds":        {2, "", "exclude each other", []string{"install", "--embedded", "--extension"}},
		"print the other":   {2, "", "create extension pgmq", []string{"install", "--print", "--extension"}},
		"after nothing":     {2, "", "goes with --print", []string{"install", "--after", "1"}},
		"after too much":    {2, "", "from 0 to", []string{"install", "--print", "--after", "99"}},
		"after all":         {0, "", "", []string{"install", "--print", "--after", fmt.Sprint(len(schema.Versions()))}},
		"program":           {0, fmt.Sprintf("schema    %d\n", len(schema.Versions())), "", []string{"version", "--program"}},
		"no server":         {1, "", "pgmq version: pgmq: connect", []string{"version"}},
		"no server, by dsn": {1, "", "pgmq install: pgmq: connect", []string{"install", "--dsn", nowhere}},
		"not a dsn":         {1, "", "pgmq install: pgmq: connect", []string{"install", "--dsn", "postgres://app:geheim@[/x"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pgmqRuns(t, nowhere, test.status, test.output, test.messages, test.args...)
		})
	}
}

// pgmqRuns runs the program and expects a status, and that it prints certain things. It returns its output.
// The password never is in it.
func pgmqRuns(t *testing.T, databaseURL string, status int, output, messages string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "DATABASE_URL="+databaseURL)
	var printed, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &printed, &said
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != status || !strings.Contains(printed.String(), output) || !strings.Contains(said.String(), messages) {
		t.Errorf("pgmq %s: status %d, printed %.500q, said %q; want status %d, %q, %q",
			strings.Join(args, " "), got, printed.String(), said.String(), status, output, messages)
	}
	if status == 0 && messages == "" && said.Len() > 0 {
		t.Errorf("pgmq %s: said %q", strings.Join(args, " "), said.String())
	}
	if strings.Contains(printed.String()+said.String(), "geheim") {
		t.Errorf("pgmq %s: printed the password: %s%s", strings.Join(args, " "), printed.String(), said.String())
	}
	return printed.String()
}
