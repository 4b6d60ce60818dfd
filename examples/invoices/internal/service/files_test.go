package service_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/holdfast-go/holdfast/examples/invoices/internal/service"
)

// The README names every setting, and neither it nor the files to deploy with name one that there is not.
func TestSettingsInFiles(t *testing.T) {
	asked := map[string]bool{}
	_, _ = service.FromEnvironment(func(name string) string { // it has what to complain of
		asked[name] = true
		return ""
	})
	name := regexp.MustCompile(`\b(INVOICES_[A-Z_]+|HOLDFAST_URL)\b`)
	for _, file := range []string{"README.md", "docker-compose.yml", "invoices@.service"} {
		text, err := os.ReadFile(filepath.Join("..", "..", file))
		if err != nil {
			t.Fatal(err)
		}
		named := map[string]bool{}
		for _, n := range name.FindAllString(string(text), -1) {
			if named[n] = true; !asked[n] {
				t.Errorf("%s has %s, which is no setting", file, n)
			}
		}
		for n := range asked {
			if file == "README.md" && !named[n] {
				t.Errorf("%s does not explain %s", file, n)
			}
		}
	}
}
