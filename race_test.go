//go:build race

package watermillpgmq_test

const raceEnabled = true
