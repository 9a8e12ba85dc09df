module gortbench

go 1.25
