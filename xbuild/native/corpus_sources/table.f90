! Arrays, constants, modules and formatted output.
module tables
  implicit none
  integer, parameter :: rk = selected_real_kind(15)
  real(rk), parameter :: weights(5) = [0.1_rk, 1.0_rk/3.0_rk, sqrt(2.0_rk), exp(1.0_rk), sin(0.5_rk)]
  type :: point
    real(rk) :: x, y
    character(len=8) :: label
  end type point
contains
  pure function distance(a, b) result(d)
    type(point), intent(in) :: a, b
    real(rk) :: d
    d = sqrt((a%x - b%x)**2 + (a%y - b%y)**2)
  end function distance
  subroutine smooth(values, n)
    integer, intent(in) :: n
    real(rk), intent(inout) :: values(n, n)
    integer :: i
    do i = 2, n - 1
      values(:, i) = (values(:, i-1) + 2 * values(:, i) + values(:, i+1)) / 4
    end do
    where (values < 0) values = 0
  end subroutine smooth
end module tables

program corpus
  use tables
  implicit none
  real(rk) :: grid(8, 8) = 1.5_rk
  complex(rk), parameter :: z = (1.0_rk, -2.5_rk) ** 3
  call smooth(grid, 8)
  print '(f12.6, 2es20.12)', sum(grid) + dot_product(weights, weights), real(z), aimag(z)
  write (*, *) distance(point(0, 0, 'a'), point(3, 4, 'b')), maxval(grid)
end program corpus
