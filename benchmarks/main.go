// Command benchmarks measures the adapter against its peers and against what Postgres itself allows, all in
// one run on one server, and prints rates and ratios. Machines differ: only the ratios say something.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

func main() {
	rounds := flag.Int("rounds", 5, "how often everything is measured, interleaved")
	messages := flag.Int("messages", 50_000, "messages of each measurement")
	only := flag.String("only", "", "measure only what has this in its name")
	durable := flag.Bool("durable", true, "fsync on, as in production; off shows the cost of everything but the disk")
	flag.Parse()
	if err := run(context.Background(), *rounds, *messages, *only, *durable); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// measurement is one row of the result: it handles n messages and returns how long that took.
type measurement struct {
	name    string
	measure func(ctx context.Context, db *pgxpool.Pool, n int) (time.Duration, error)
	// share of the messages that is enough, for what is slow. 0: all of them.
	share float64
	rates []float64
}

func run(ctx context.Context, rounds, messages int, only string, durable bool) (err error) {
	options := []pgmqtest.Option{pgmqtest.Setting("max_connections", "300")}
	if durable {
		options = append(options, pgmqtest.Durable())
	}
	server, err := pgmqtest.Start(ctx, options...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()

	all := slices.DeleteFunc(measurements(), func(m *measurement) bool { return !strings.Contains(m.name, only) })
	for round := range rounds {
		for _, m := range all {
			n := messages
			if m.share > 0 {
				n = int(float64(n) * m.share)
			}
			took, err := inDatabase(ctx, server, func(db *pgxpool.Pool) (time.Duration, error) { return m.measure(ctx, db, n) })
			if err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			rate := float64(n) / took.Seconds()
			m.rates = append(m.rates, rate)
			fmt.Fprintf(os.Stderr, "round %d: %-55s %10.0f/s\n", round+1, m.name, rate)
		}
	}
	report(all)
	return nil
}

// inDatabase gives each measurement a fresh database.
func inDatabase(ctx context.Context, server *pgmqtest.Server, f func(*pgxpool.Pool) (time.Duration, error)) (took time.Duration, err error) {
	dsn, drop, err := server.CreateDatabase(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, drop(ctx)) }()
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return 0, err
	}
	config.MaxConns = 70
	db, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	return f(db)
}

func median(rates []float64) float64 {
	sorted := slices.Sorted(slices.Values(rates))
	return sorted[len(sorted)/2]
}

func report(all []*measurement) {
	rate := map[string]float64{}
	fmt.Printf("\n%-55s %10s   %s\n", "", "median /s", "lowest .. highest")
	for _, m := range all {
		rate[m.name] = median(m.rates)
		fmt.Printf("%-55s %10.0f   %.0f .. %.0f\n", m.name, rate[m.name], slices.Min(m.rates), slices.Max(m.rates))
	}
	fmt.Println()
	for _, t := range targets {
		if rate[t.ours] == 0 || rate[t.other] == 0 {
			continue
		}
		verdict := "met"
		if rate[t.ours] < t.ratio*rate[t.other] {
			verdict = "MISSED"
		}
		fmt.Printf("%-30s / %-48s %6.2f  target %.2f  %s\n", t.ours, t.other, rate[t.ours]/rate[t.other], t.ratio, verdict)
	}
}
