<#
.SYNOPSIS
    build, test, bench and pack for people who have PowerShell. Nothing else needs this script.
.EXAMPLE
    ./build.ps1 test
.EXAMPLE
    ./build.ps1 bench --filter *Matmul*
#>
param(
    [Parameter(Position = 0)]
    [ValidateSet('build', 'test', 'bench', 'pack')]
    [string] $Task = 'build',

    [Parameter(ValueFromRemainingArguments = $true)]
    [string[]] $Rest = @()
)

$ErrorActionPreference = 'Stop'
Push-Location $PSScriptRoot
try {
    switch ($Task) {
        'build' { dotnet build Engine.sln -c Release @Rest }
        'test' { dotnet test Engine.sln -c Release @Rest }
        'bench' { dotnet run -c Release --project bench/Engine.Bench -- @Rest }
        'pack' { dotnet pack src/Engine -c Release -o artifacts @Rest }
    }
    if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
}
finally {
    Pop-Location
}
