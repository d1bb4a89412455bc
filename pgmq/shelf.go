package pgmq

// shelf holds leases that wait to be handed out.
type shelf interface {
	// put adds a lease; those of one batch come in the order of their ids.
	put(l *Lease)
	// next takes the lease from the shelf that is to be handed out now. Nil: none may be.
	next() *Lease
	// size counts the leases that are there, whether they may be handed out or not.
	size() int
	// available counts those of them that may be handed out now, one after the other.
	available() int
	// each calls f for all of them.
	each(f func(*Lease))
	// cut takes all but n of them from the shelf, the ones that would be handed out last.
	cut(n int) []*Lease
	// settled says that the settlement of a lease which was handed out is committed. If the message is
	// not done, it may be read again, and those that must not overtake it are taken from the shelf.
	settled(l *Lease, done bool) []*Lease
}

// plainShelf is first in, first out.
type plainShelf struct{ leases []*Lease }

func (s *plainShelf) put(l *Lease) { s.leases = append(s.leases, l) }

func (s *plainShelf) next() *Lease {
	if len(s.leases) == 0 {
		return nil
	}
	l := s.leases[0]
	s.leases[0] = nil
	s.leases = s.leases[1:]
	return l
}

func (s *plainShelf) size() int      { return len(s.leases) }
func (s *plainShelf) available() int { return len(s.leases) }

func (s *plainShelf) each(f func(*Lease)) {
	for _, l := range s.leases {
		f(l)
	}
}

func (s *plainShelf) cut(n int) []*Lease {
	if n >= len(s.leases) {
		return nil
	}
	rest := append([]*Lease(nil), s.leases[n:]...)
	clear(s.leases[n:])
	s.leases = s.leases[:n]
	return rest
}

func (s *plainShelf) settled(*Lease, bool) []*Lease { return nil }

// groupShelf hands out one message of a group at a time: the next one when the settlement of the one
// before is committed. Groups take turns.
type groupShelf struct {
	lines map[string]*line
	ready []*line // with leases, and none handed out; some were cut since
	n     int
	live  int // lines with leases, and none handed out
}

// line is the waiting messages of a group, in order.
type line struct {
	leases []*Lease
	busy   bool // one is handed out, or its settlement is not committed yet
}

func newGroupShelf() *groupShelf { return &groupShelf{lines: map[string]*line{}} }

func (s *groupShelf) put(l *Lease) {
	waiting := s.lines[l.group]
	if waiting == nil {
		waiting = &line{}
		s.lines[l.group] = waiting
	}
	waiting.leases = append(waiting.leases, l)
	s.n++
	if len(waiting.leases) == 1 && !waiting.busy {
		s.ready = append(s.ready, waiting)
		s.live++
	}
}

func (s *groupShelf) next() *Lease {
	for len(s.ready) > 0 {
		first := s.ready[0]
		s.ready[0] = nil
		s.ready = s.ready[1:]
		if len(first.leases) == 0 {
			continue // it was cut
		}
		l := first.leases[0]
		first.leases = first.leases[1:]
		first.busy = true
		s.n--
		s.live--
		return l
	}
	return nil
}

func (s *groupShelf) size() int      { return s.n }
func (s *groupShelf) available() int { return s.live }

func (s *groupShelf) each(f func(*Lease)) {
	for _, waiting := range s.lines {
		for _, l := range waiting.leases {
			f(l)
		}
	}
}

func (s *groupShelf) cut(n int) []*Lease {
	var rest []*Lease
	for s.n > n {
		for group, waiting := range s.lines {
			if last := len(waiting.leases) - 1; last >= 0 && s.n > n {
				rest = append(rest, waiting.leases[last])
				waiting.leases = waiting.leases[:last]
				s.n--
				if last == 0 && !waiting.busy {
					s.live--
				}
			}
			s.forget(group, waiting)
		}
	}
	return rest
}

func (s *groupShelf) settled(l *Lease, done bool) []*Lease {
	waiting := s.lines[l.group]
	waiting.busy = false
	var rest []*Lease
	if done && len(waiting.leases) > 0 {
		s.ready = append(s.ready, waiting)
		s.live++
	} else {
		rest = waiting.leases
		waiting.leases = nil
		s.n -= len(rest)
	}
	s.forget(l.group, waiting)
	return rest
}

// forget drops a group of which nothing is here.
func (s *groupShelf) forget(group string, waiting *line) {
	if len(waiting.leases) == 0 && !waiting.busy {
		delete(s.lines, group)
	}
}
