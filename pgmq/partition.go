package pgmq

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Interval is what one partition of a queue holds, or what is kept of a queue: a number of messages or a
// span of time. Beside what Messages and Span make it may be any of Postgres's intervals, as "1 month".
type Interval string

// Messages is an interval of n messages.
func Messages(n int64) Interval { return Interval(strconv.FormatInt(n, 10)) }

// Span is an interval of time, rounded up to whole seconds.
func Span(d time.Duration) Interval {
	const day = 24 * time.Hour
	switch {
	case d%day == 0: // which days as long as 23 or 25 hours are, too
		return Interval(fmt.Sprintf("%d days", d/day))
	case d%time.Hour == 0:
		return Interval(fmt.Sprintf("%d hours", d/time.Hour))
	}
	return Interval(fmt.Sprintf("%d seconds", roundUp(d, time.Second)))
}

// Partitioned makes a queue, and its archive, of partitions that hold interval each; those older than
// retention are dropped, with whatever is in them. Both intervals are of the same kind. premake is how
// many partitions are made ahead: 0 is the server's default, 4; anything else needs PGMQ 1.13. It needs
// the extension pg_partman, whose maintenance has to run (pgmq.create_partitioned).
func Partitioned(interval, retention Interval, premake int) CreateOption {
	return partitions{interval, retention, premake}
}

type partitions struct {
	interval, retention Interval
	ahead               int
}

func (p partitions) applyCreate(o *createOptions) { o.partitions = &p }

// ConvertArchive replaces the archive of a queue by a partitioned one; see Partitioned. What was archived
// before stays, in the table a_<queue>_old. ahead is how many partitions are made ahead, 0 being the
// server's default, 10. An archive that is partitioned already stays as it is
// (pgmq.convert_archive_partitioned).
func (c *Client) ConvertArchive(ctx context.Context, queue string, interval, retention Interval, ahead int) error {
	op := operation{"convert_archive_partitioned", queue}
	p := partitions{interval, retention, ahead}
	if err := p.validate(queue); err != nil {
		return op.fail(err)
	}
	if ahead == 0 {
		return c.onQueue(ctx, op, queue, `pgmq.convert_archive_partitioned(m.queue_name::text, $2::text, $3::text)`,
			string(interval), string(retention))
	}
	return c.onQueue(ctx, op, queue, `pgmq.convert_archive_partitioned(m.queue_name::text, $2::text, $3::text, $4::integer)`,
		string(interval), string(retention), ahead)
}

// statement creates a queue.
func (p partitions) statement(queue string) (sql string, args []any) {
	args = []any{queue, string(p.interval), string(p.retention)}
	if p.ahead == 0 {
		return `select pgmq.create_partitioned($1::text, $2::text, $3::text)`, args
	}
	return `select pgmq.create_partitioned($1::text, $2::text, $3::text, $4::integer)`, append(args, p.ahead)
}

func (p partitions) validate(queue string) error {
	if err := firstError(p.interval.validate("interval"), p.retention.validate("retention")); err != nil {
		return err
	}
	switch {
	case strings.Contains(queue, "."):
		return &NameError{Kind: kindQueueName, Name: queue, Rule: "contains a dot, which no name of a partitioned table may"}
	case p.ahead < 0 || p.ahead > math.MaxInt32:
		return &ValueError{Name: "partitions made ahead", Value: p.ahead, Rule: "from 0 to 2147483647"}
	case p.interval.isCount() != p.retention.isCount():
		return &ValueError{
			Name: "retention", Value: strconv.Quote(string(p.retention)),
			Rule: fmt.Sprintf("of the same kind as the interval, %q: a number of messages or a span of time", p.interval),
		}
	}
	return ValidateQueueName(queue)
}

var nothing = regexp.MustCompile(`^\s*(-|0+(\s|$)|$)`)

// validate refuses what is nothing or less. Whether it is an interval at all, the server says.
func (i Interval) validate(name string) error {
	if nothing.MatchString(string(i)) {
		return &ValueError{Name: name, Value: strconv.Quote(string(i)), Rule: "more than nothing"}
	}
	return nil
}

// isCount says whether the interval is one of messages.
func (i Interval) isCount() bool { return strings.Trim(string(i), "0123456789") == "" }
