// Package schema holds the project's own PGMQ-compatible schema: SQL that makes any Postgres from 14 on
// speak PGMQ. Client.Install of the package pgmq applies it.
//
// A folder is a version: v1 creates everything, each later one changes what the version before it left.
// A version that was released is never changed again; the ledger in the database keeps its checksum.
package schema

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

//go:embed v*/*.sql
var files embed.FS

// Version is one step of the schema.
type Version struct {
	// Number counts from 1 without gaps.
	Number int
	// SQL is the whole step: any number of statements, to be run in one transaction.
	SQL string
	// Checksum is the SHA-256 of SQL in hexadecimal.
	Checksum string
}

// Statement is the step as one statement, which also writes it into the ledger: it happens as a whole or
// not at all, in a transaction or without one, and may be run by any tool. Client.Install runs the same.
//
// The names in SQL shall mean what they mean in Postgres, whatever the caller's search_path has.
func (v Version) Statement() string {
	return `do $pgmq_install$
declare
    caller_path constant text := pg_catalog.current_setting('search_path');
begin
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    execute $pgmq_version$
` + v.SQL + `$pgmq_version$;
    insert into pgmq._ledger (version, checksum)
    values (` + strconv.Itoa(v.Number) + `, '` + strings.ReplaceAll(v.Checksum, "'", "''") + `');
    perform pg_catalog.set_config('search_path', caller_path, true);
end;
$pgmq_install$;
`
}

var versions = load()

// Versions returns all versions, the oldest first: the order in which they are applied.
func Versions() []Version {
	return append([]Version(nil), versions...)
}

// load reads the files. They are part of the program, so that a failure is a mistake in it.
func load() []Version {
	var all []Version
	for number := 1; ; number++ {
		paths, err := fs.Glob(files, fmt.Sprintf("v%d/*.sql", number)) // sorted by name
		if err != nil {
			panic(err)
		}
		if len(paths) == 0 {
			return all
		}
		var sql strings.Builder
		for _, path := range paths {
			content, err := files.ReadFile(path)
			if err != nil {
				panic(err)
			}
			fmt.Fprintf(&sql, "%s\n", content)
		}
		sum := sha256.Sum256([]byte(sql.String()))
		all = append(all, Version{Number: number, SQL: sql.String(), Checksum: hex.EncodeToString(sum[:])})
	}
}
