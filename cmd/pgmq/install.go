package main

import (
	"context"
	"flag"
	"fmt"
	"io"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmq/schema"
)

func prepareInstall(flags *flag.FlagSet) func(ctx context.Context, out io.Writer) error {
	db := declareDatabase(flags)
	extension := flags.Bool("extension", false, "the PGMQ extension, or fail where it cannot be had")
	embedded := flags.Bool("embedded", false, "the schema of this project, even where the extension can be had")
	printed := flags.Bool("print", false, "print the SQL of the schema of this project, and connect to nothing")
	after := flags.Int("after", 0, "with --print: what leads from this `version` of the schema to the newest")

	return func(ctx context.Context, out io.Writer) error {
		newest := len(schema.Versions())
		switch {
		case *extension && *embedded:
			return usageError("--extension and --embedded exclude each other")
		case *printed && *extension:
			return usageError("--print is for the schema of this project: the extension is installed by \"create extension pgmq cascade\"")
		case *after != 0 && !*printed:
			return usageError("--after goes with --print")
		case *after < 0 || *after > newest:
			return usageError(fmt.Sprintf("--after is %d: it must be from 0 to %d", *after, newest))
		case *printed:
			return printSchema(out, schema.Versions()[*after:])
		}

		var opts []pgmq.InstallOption
		if *extension {
			opts = append(opts, pgmq.Extension())
		}
		if *embedded {
			opts = append(opts, pgmq.EmbeddedSchema())
		}
		return db.do(ctx, func(ctx context.Context, c *pgmq.Client) error {
			v, err := c.Install(ctx, opts...)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(out, "The database has PGMQ: %s\n", v)
			return err
		})
	}
}

// printSchema prints one statement for each version, which also writes it into the ledger.
func printSchema(out io.Writer, versions []schema.Version) error {
	for _, v := range versions {
		_, err := fmt.Fprintf(out, `-- Schema pgmq, version %d: message queues (PGMQ), by watermill-pgmq.
-- One statement, which is done as a whole or not at all. Run it once, by any tool; pgmq.Install finds it done.
%s
`, v.Number, v.Statement())
		if err != nil {
			return err
		}
	}
	return nil
}
