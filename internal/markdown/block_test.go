package markdown

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBlocks(t *testing.T) {
	got := Blocks("text\n```sh cloud: no cluster here\nkubectl get pods\n```\n\n- item\n  ```json\n  {\n    \"a\": 1\n  }\n  ```\n```\nplain\n```\n```never closed\n")
	want := []Block{
		{Language: "sh", Note: "cloud: no cluster here", Body: "kubectl get pods\n", Line: 2},
		{Language: "json", Body: "{\n  \"a\": 1\n}\n", Line: 7},
		{Body: "plain\n", Line: 12},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
