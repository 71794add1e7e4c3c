package deploytest

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(around{m})
}

// around closes what the tests share before goleak looks.
type around struct{ m *testing.M }

func (a around) Run() int {
	code := a.m.Run()
	if shared.home != nil {
		if err := shared.home.Close(); err != nil {
			code = max(code, 1)
		}
	}
	return code
}
