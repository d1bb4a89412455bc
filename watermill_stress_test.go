//go:build stress

package watermillpgmq_test

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
)

func TestStress_Topics(t *testing.T)      { runSuite(t, topics(), tests.TestPubSubStressTest) }
func TestStress_Queues(t *testing.T)      { runSuite(t, queues(), tests.TestPubSubStressTest) }
func TestStress_Concurrency(t *testing.T) { runSuite(t, concurrent(), tests.TestPubSubStressTest) }
func TestStress_Archive(t *testing.T)     { runSuite(t, archive(), tests.TestPubSubStressTest) }
func TestStress_Exact(t *testing.T)       { runSuite(t, exact(), tests.TestPubSubStressTest) }
