// The command pgmq looks after PGMQ in a database: it installs and upgrades it, says what there is, and
// removes it.
//
//	pgmq install                     see to it that the database has PGMQ
//	pgmq install --print             print the SQL that would be run, for your own migrations
//	pgmq uninstall --database NAME   drop the embedded schema, with all queues and messages
//	pgmq version                     say what this program and the database have
//
// Every command takes --help. The database is that of --dsn, or of the environment: DATABASE_URL, else
// PGHOST, PGUSER, PGPASSWORD and so on, and the password file. The arguments of a command are visible to
// everybody on the machine: a password is better kept in the environment. It is never printed.
//
// # Exit status
//
//	0   done
//	1   it failed: the database refused, or could not be reached
//	2   the command line is wrong; nothing was done
//	3   version: the database has no PGMQ
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

// The exit statuses.
const (
	done         = 0
	failed       = 1
	wrongUsage   = 2
	notInstalled = 3
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// command is one of the words that may follow "pgmq".
type command struct {
	name, summary string
	// prepare declares the command's flags, and returns what it does once they are parsed.
	prepare func(flags *flag.FlagSet) func(ctx context.Context, out io.Writer) error
}

var commands = []command{
	{"install", "see to it that the database has PGMQ, or print the SQL for it", prepareInstall},
	{"uninstall", "drop the embedded schema, with all queues and messages", prepareUninstall},
	{"version", "say what this program and the database have", prepareVersion},
}

func run(ctx context.Context, args []string, out, messages io.Writer) int {
	if len(args) == 0 {
		usage(messages)
		return wrongUsage
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		usage(out)
		return done
	}
	for _, c := range commands {
		if c.name == args[0] {
			return c.run(ctx, args[1:], out, messages)
		}
	}
	fmt.Fprintf(messages, "pgmq: there is no command %q\n\n", args[0])
	usage(messages)
	return wrongUsage
}

func usage(to io.Writer) {
	fmt.Fprint(to, "Usage: pgmq COMMAND [flags]\n\n")
	for _, c := range commands {
		fmt.Fprintf(to, "  %-10s %s\n", c.name, c.summary)
	}
	fmt.Fprint(to, "\npgmq COMMAND --help lists the flags of a command.\n")
}

func (c command) run(ctx context.Context, args []string, out, messages io.Writer) int {
	flags := flag.NewFlagSet("pgmq "+c.name, flag.ContinueOnError)
	flags.SetOutput(messages)
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "Usage: pgmq %s [flags]: %s\n\n", c.name, c.summary)
		flags.PrintDefaults()
	}
	do := c.prepare(flags)
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return done
	case err != nil:
		return wrongUsage
	}

	if flags.NArg() > 0 {
		return c.report(messages, usageError(fmt.Sprintf("%q is not a flag", flags.Arg(0))))
	}
	return c.report(messages, do(ctx, out))
}

// usageError is what is wrong with the command line.
type usageError string

func (e usageError) Error() string { return string(e) }

// report prints an error, and returns the exit status for it.
func (c command) report(messages io.Writer, err error) int {
	if err == nil {
		return done
	}
	fmt.Fprintf(messages, "pgmq %s: %v\n", c.name, err)
	var usage usageError
	switch {
	case errors.As(err, &usage):
		return wrongUsage
	case c.name == "version" && errors.Is(err, pgmq.ErrNotInstalled):
		return notInstalled
	}
	return failed
}
