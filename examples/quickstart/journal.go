package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

// journal notes what every group has seen.
type journal struct {
	mu      sync.Mutex
	seen    map[string][]order
	changed chan struct{} // holds one signal
}

func newJournal() *journal {
	return &journal{seen: map[string][]order{}, changed: make(chan struct{}, 1)}
}

func (j *journal) saw(group string, o order) {
	tell(group, o, o.Status)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.seen[group] = append(j.seen[group], o)
	select {
	case j.changed <- struct{}{}:
	default:
	}
}

// await waits until every group has seen the orders placed, and the audit has seen them shipped too. A message may
// come twice, and one that an interrupted run has left behind may be among them, so counting would not do.
func (j *journal) await(ctx context.Context, orders []order) error {
	for !j.complete(orders) {
		select {
		case <-j.changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (j *journal) complete(orders []order) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, placed := range orders {
		shipped := placed
		shipped.Status = "shipped"
		if !slices.Contains(j.seen["billing"], placed) || !slices.Contains(j.seen["shipping"], placed) ||
			!slices.Contains(j.seen["audit"], placed) || !slices.Contains(j.seen["audit"], shipped) {
			return false
		}
	}
	return true
}

// tell prints one line of the story.
func tell(who string, o order, what string) {
	fmt.Printf("%-8s  order %d  %-5s  %s\n", who, o.ID, o.Item, what)
}

// report prints what every group has seen, and what the database says about the queues.
func (s *shop) report(ctx context.Context) error {
	metrics, err := pgmq.New(s.db).MetricsAll(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nGROUP\tHAS SEEN")
	for _, group := range []string{"billing", "shipping", "audit"} {
		var seen []string
		for _, o := range s.journal.seen[group] {
			seen = append(seen, o.Item+" "+o.Status)
		}
		fmt.Fprintf(w, "%s\t%s\n", group, strings.Join(seen, ", "))
	}
	fmt.Fprintln(w, "\nQUEUE\tSENT\tWAITING")
	for _, m := range metrics {
		fmt.Fprintf(w, "%s\t%d\t%d\n", m.Queue, m.Total, m.Length)
	}
	return w.Flush()
}
