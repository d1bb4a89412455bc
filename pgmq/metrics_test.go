package pgmq_test

import (
	"testing"
	"time"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	c := pgmq.New(pgmqtest.New(t).Pool)
	newQueue(t, c, "empty")
	newQueue(t, c, "q", `1`, `2`, `3`, `4`)
	if _, err := c.Delete(t.Context(), "q", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := c.SetVisibility(t.Context(), "q", pgmq.VisibleIn(time.Hour), 4); err != nil {
		t.Fatal(err)
	}

	exact, err := c.Metrics(t.Context(), "q")
	if err != nil || exact.DefaultPartition != nil {
		t.Errorf("%+v, %v", exact, err)
	}
	estimate, err := c.EstimateMetrics(t.Context(), "q")
	if err != nil {
		t.Error(err)
	}
	all, err := c.MetricsAll(t.Context())
	if err != nil || len(all) != 2 || all[0].Queue != "empty" {
		t.Fatalf("%+v, %v", all, err)
	}
	for name, m := range map[string]pgmq.Metrics{"Metrics": exact, "EstimateMetrics": estimate, "MetricsAll": all[1]} {
		if m.Queue != "q" || m.Length != 3 || m.Visible == nil || *m.Visible != 2 || m.Total != 4 ||
			m.Newest == nil || *m.Newest > time.Minute || m.Oldest == nil || *m.Oldest > time.Minute ||
			time.Since(m.ScrapedAt).Abs() > time.Minute {
			t.Errorf("%s: %+v", name, m)
		}
	}
	if m := all[0]; m.Length != 0 || m.Total != 0 || *m.Visible != 0 || m.Newest != nil || m.Oldest != nil {
		t.Errorf("of an empty queue: %+v", m)
	}
}
