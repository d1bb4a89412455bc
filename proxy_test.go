package watermillpgmq_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// proxy stands between a pool and its server, as a network that fails.
type proxy struct {
	listener net.Listener
	dial     func(context.Context) (net.Conn, error)
	joined   sync.WaitGroup

	mu    sync.Mutex
	open  chan struct{} // closed: bytes flow
	conns map[net.Conn]struct{}
	ended bool
}

// throughProxy returns a pool like db whose connections all go through a proxy.
func throughProxy(t testing.TB, db *pgxpool.Pool) (*pgxpool.Pool, *proxy) {
	t.Helper()
	to := db.Config().ConnConfig
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	network, address := pgconn.NetworkAddress(to.Host, to.Port)
	p := &proxy{
		listener: listener,
		dial:     func(ctx context.Context) (net.Conn, error) { return to.DialFunc(ctx, network, address) },
		open:     make(chan struct{}),
		conns:    map[net.Conn]struct{}{},
	}
	close(p.open)
	p.joined.Go(p.serve)
	t.Cleanup(p.close)

	pool := poolLike(t, db, func(cfg *pgxpool.Config) {
		cfg.ConnConfig.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", listener.Addr().String())
		}
	})
	return pool, p
}

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		server, err := p.dial(context.Background())
		if err != nil {
			_ = client.Close()
			continue
		}
		p.forward(client, server)
		p.forward(server, client)
	}
}

// forward copies in one direction, until either side is closed.
func (p *proxy) forward(from, to net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[from] = struct{}{}
	if p.ended {
		_ = from.Close()
	}
	p.joined.Go(func() {
		_, _ = io.Copy(to, gated{from, p}) // it ends with an error whenever it is cut
		_ = from.Close()
		_ = to.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, from)
	})
}

// gated reads nothing while the proxy is stalled.
type gated struct {
	net.Conn
	proxy *proxy
}

func (g gated) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	g.proxy.mu.Lock()
	open := g.proxy.open
	g.proxy.mu.Unlock()
	<-open
	return n, err
}

// stall lets nothing through any more, as a firewall that forgot its connections: no side hears of it.
func (p *proxy) stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = make(chan struct{})
}

// heal ends a stall. What was held up is lost together with its connections.
func (p *proxy) heal() {
	p.cut()
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.open)
}

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		_ = conn.Close()
	}
}

func (p *proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.cut()
	p.joined.Wait()
}
