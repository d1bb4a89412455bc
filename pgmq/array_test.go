package pgmq_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// What database/sql gets for an array is what Postgres understands, element by element.
func TestArraysAsText(t *testing.T) {
	t.Parallel()
	conn := newConn(t, pgmqtest.NewEmpty(t).DSN)
	texts := rapid.SliceOf(rapid.Ptr(rapid.OneOf(
		rapid.StringOf(rapid.RuneFrom([]rune(`"\{},' NULü`+"\n\t\v"))),
		rapid.StringMatching(`[^\x00]*`),
	), true))
	rapid.Check(t, func(t *rapid.T) {
		want := texts.Draw(t, "texts")
		var got []*string
		if err := conn.QueryRow(t.Context(), `select $1::text[]`, pgmq.StdArg(want)).Scan(&got); err != nil {
			t.Fatal(err)
		}
		same := func(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }
		if !slices.EqualFunc(got, want, same) {
			t.Fatalf("%s came back as something else", pgmq.StdArg(want))
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOf(rapid.Int64()).Draw(t, "ids")
		var got []int64
		if err := conn.QueryRow(t.Context(), `select $1::bigint[]`, pgmq.StdArg(want)).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%v came back as %v", want, got)
		}
	})
}
