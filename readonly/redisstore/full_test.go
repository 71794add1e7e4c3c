package redisstore_test

import (
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/redisclient"
)

// On a server that is full the mode is switched, and those who obey it are heard of.
func TestFullServer(t *testing.T) {
	server, err := rediscluster.Start(t.Context(), &rediscluster.Options{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	rdb := redisclient.New(redisclient.Options(server.Addrs()...))
	t.Cleanup(func() { rdb.Close() })
	if err := server.Nodes()[0].Fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := open(t, rdb)
	for epoch := range uint64(2) {
		state := readonly.State{Epoch: epoch + 1, ID: "a", Enabled: epoch == 0}
		if won, err := s.Save(t.Context(), state); err != nil || won.Enabled != state.Enabled {
			t.Errorf("epoch %d: %+v, %v", state.Epoch, won, err)
		}
		if err := s.Acknowledge(t.Context(), "instance", readonly.Ack{Epoch: state.Epoch}, time.Minute); err != nil {
			t.Error(err)
		}
		if acks, err := s.Acknowledged(t.Context()); err != nil || acks["instance"].Epoch != state.Epoch {
			t.Errorf("epoch %d: %+v, %v", state.Epoch, acks, err)
		}
	}
}
