package pgmqtest_test

import (
	"context"
	"testing"

	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// BenchmarkDatabase is what a test pays: its database is created and dropped.
func BenchmarkDatabase(b *testing.B) {
	server := pgmqtest.New(b).Server
	b.Run("alone", func(b *testing.B) {
		for b.Loop() {
			createAndDrop(b, server)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				createAndDrop(b, server)
			}
		})
	})
}

func createAndDrop(b *testing.B, server *pgmqtest.Server) {
	b.Helper()
	ctx := context.Background()
	_, drop, err := server.CreateDatabase(ctx)
	if err != nil {
		b.Error(err)
		return
	}
	if err := drop(ctx); err != nil {
		b.Error(err)
	}
}
