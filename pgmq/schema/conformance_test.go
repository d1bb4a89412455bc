package schema_test

import (
	"bytes"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// TestConformance holds the schema to what PGMQ 1.12.0 answers: testdata/conformance has SQL scripts, and what
// psql printed for them on the original. Errors count by SQLSTATE, not by their text.
func TestConformance(t *testing.T) {
	t.Parallel()
	psql := findPSQL(t)
	scripts, err := filepath.Glob("testdata/conformance/cases/*.sql")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, script := range scripts {
		name := strings.TrimSuffix(filepath.Base(script), ".sql")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := runScript(t, psql, script)
			if strings.Contains(got, "pg_partman is not available") {
				t.Log("this server has no pg_partman: only that it is asked for is tested")
				return
			}
			want, err := os.ReadFile("testdata/conformance/expected/" + name + ".out")
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("differs:\n%s", difference(string(want), got))
			}
		})
	}
}

// findPSQL is the client that comes with Postgres; a directory of server programs may lack it.
func findPSQL(t *testing.T) string {
	t.Helper()
	if path, err := osexec.LookPath("psql"); err == nil {
		return path
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/psql")
	if err != nil || len(found) == 0 {
		t.Fatal("psql is missing: install the Postgres client, such as Debian's postgresql-client, or put it into PATH")
	}
	return found[len(found)-1]
}

// What psql adds that differs from run to run.
var noise = regexp.MustCompile(`(?m)^NOTICE:.*\n| with PID [0-9]+|^psql:[^:]*:[0-9]*: |^DETAIL:.*\n|^HINT:.*\n`)

func runScript(t *testing.T, psql, script string) string {
	t.Helper()
	body, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	settings := "\\set VERBOSITY sqlstate\n\\pset format unaligned\n\\pset tuples_only on\n\\pset null NULL\n"
	command := osexec.CommandContext(t.Context(), psql, "-Xq", pgmqtest.New(t).DSN)
	command.Stdin = strings.NewReader(settings + string(body))
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := command.Run(); err != nil {
		t.Fatalf("psql: %v\n%s", err, out.String())
	}
	return noise.ReplaceAllString(out.String(), "")
}

// difference shows the lines that only one of two texts has, in their order.
func difference(want, got string) string {
	var b strings.Builder
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		var left, right string
		if i < len(w) {
			left = w[i]
		}
		if i < len(g) {
			right = g[i]
		}
		if left != right {
			fmt.Fprintf(&b, "line %d\n  want %s\n  got  %s\n", i+1, left, right)
		}
	}
	return b.String()
}
