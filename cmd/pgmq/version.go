package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmq/schema"
)

func prepareVersion(flags *flag.FlagSet) func(ctx context.Context, out io.Writer) error {
	db := declareDatabase(flags)
	program := flags.Bool("program", false, "that of this program alone: connect to nothing")

	return func(ctx context.Context, out io.Writer) error {
		fmt.Fprintf(out, "program   %s\nschema    %d\n", programVersion(), len(schema.Versions()))
		if *program {
			return nil
		}
		return db.do(ctx, func(ctx context.Context, c *pgmq.Client) error {
			v, err := c.Version(ctx)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(out, "database  %s\n", v)
			return err
		})
	}
}

// programVersion is that of the module, as far as the Go command knew it.
func programVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(unknown)"
	}
	return info.Main.Version
}
